//! Whether a server can do its work, for whoever runs it and has nothing but this executable.

use std::process::ExitCode;
use std::time::Duration;

use reqwest::Url;

use crate::cli::ServerAddress;
use crate::client::ClientError;
use crate::readiness::{Asker, NotReady};

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The server cannot do its work, or does not say so.
#[derive(Debug, thiserror::Error)]
#[error("{server} {why}")]
struct Unhealthy {
    server: Url,
    why: NotReady,
}

/// Asks a server whether it can do its work: it alone, whatever else it answers for.
pub(crate) async fn healthcheck(options: &ServerAddress) -> anyhow::Result<ExitCode> {
    let bad = || ClientError::BadServer(options.server.clone());
    let server = Url::parse(&options.server).ok().filter(Url::has_host);
    // It runs beside the server, which speaks plain HTTP.
    let server = server.filter(|url| url.scheme() == "http").ok_or_else(bad)?;
    let asked = Asker::new(PATIENCE)?.ask(&server).await;
    asked.map_err(|why| Unhealthy { server, why })?;
    Ok(ExitCode::SUCCESS)
}
