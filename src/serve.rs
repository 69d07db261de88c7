//! From options to a running server, and down again.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;
use waybill_runtime::trace::Tracer;
use waybill_runtime::{Clock, Ids, Migrations, OpenError, Runtime};
use waybill_web::Site;

use crate::cli::{RunOptions, ServeOptions};
use crate::peers::{self, Peer, Peers};
use crate::services::{self, Name, Settings};

/// How long balancers have to see that the server is not ready before it takes no more requests.
const NOT_READY_BEFORE_CLOSED: Duration = Duration::from_secs(1);

/// The address to listen on cannot be used.
#[derive(Debug)]
pub(crate) struct CannotListen {
    address: String,
    cause: std::io::Error,
}

impl std::fmt::Display for CannotListen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.cause)
    }
}

impl std::error::Error for CannotListen {}

/// A server with its services.
pub(crate) struct Server {
    runtime: Runtime,
    stopping: CancellationToken,
    serving: JoinHandle<()>,
    /// Where it is reached.
    pub(crate) url: String,
}

/// Serves until it is told to stop.
pub(crate) async fn serve(options: ServeOptions, tracer: &Tracer) -> anyhow::Result<ExitCode> {
    let settings = settings(&options.options, options.packing, options.carrier_transit);
    let (services, peers) = (&options.services, &options.peers);
    let server = Server::start(&options.options, services, peers, settings, tracer).await?;
    told_to_stop().await?;
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// What the options set of each service.
pub(crate) fn settings(options: &RunOptions, packing: Duration, transit: Duration) -> Settings {
    Settings {
        order: waybill_order::Settings { deadline: options.order_deadline },
        logistics: waybill_logistics::Settings { carrier: options.carrier, packing, transit },
    }
}

impl Server {
    /// Opens what is named (everything if nothing is) and begins to serve, with an answer for the
    /// peers too.
    pub(crate) async fn start(
        options: &RunOptions,
        names: &[Name],
        peers: &[Peer],
        settings: Settings,
        tracer: &Tracer,
    ) -> anyhow::Result<Self> {
        let all = [Name::Inventory, Name::User, Name::Order, Name::Logistics, Name::Audit];
        let names = if names.is_empty() { &all[..] } else { names };
        peers::check(names, peers)?;
        let (clock, stopping) = (Clock::system(), CancellationToken::new());
        waybill_web::record_metrics();
        let (store, event_store) = (options.store.location()?, options.store.event_store()?);
        let (ids, mode) = (Ids::system(), Migrations::Apply);
        let runtime = Runtime::open(store, Some(event_store), clock.clone(), ids, mode).await?;
        let mut runtime = runtime.traced_by(tracer.clone());
        if let Some(most) = options.batch {
            runtime = runtime.in_batches_of(most);
        }
        let site = Site::new(clock, runtime.health().clone(), stopping.clone())
            .event_store(runtime.event_store().clone())
            .traced_by(tracer.clone());
        let listening = async {
            let site = hosting(&runtime, names, settings, site, &stopping).await?;
            let site = answering_for(peers, &runtime, site, &stopping)?;
            listen(&options.listen, site.into_router()?, &stopping).await
        };
        let (url, serving) = match listening.await {
            Ok(listening) => listening,
            Err(error) => {
                // What runs already must come to a clean end, or the next start would take care.
                runtime.stop().await;
                return Err(error);
            }
        };
        let hosted: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        info!("serving {} on {url}", hosted.join(", "));
        Ok(Self { runtime, stopping, serving, url })
    }

    /// Not ready first, while requests still come in; then they end, queues are drained and
    /// outboxes relayed.
    pub(crate) async fn stop(self) {
        info!("stopping");
        self.runtime.health().bad("server", "stopping".to_owned());
        tokio::time::sleep(NOT_READY_BEFORE_CLOSED).await;
        self.stopping.cancel();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the server did not end as it should");
        }
        self.runtime.stop().await;
        info!("stopped");
    }
}

/// Opens these services, begins to run them, and adds their routes.
async fn hosting(
    runtime: &Runtime,
    names: &[Name],
    settings: Settings,
    mut site: Site,
    stopping: &CancellationToken,
) -> Result<Site, OpenError> {
    for name in names {
        site = services::host(*name, runtime, settings, site, stopping).await?;
    }
    Ok(site)
}

/// Adds what others serve to the readiness and to the document.
fn answering_for(
    peers: &[Peer],
    runtime: &Runtime,
    site: Site,
    stopping: &CancellationToken,
) -> Result<Site, reqwest::Error> {
    if peers.is_empty() {
        return Ok(site);
    }
    let describe = |site, peer: &Peer| services::describe(peer.name, runtime, site, stopping);
    let site = peers.iter().fold(site, describe);
    Ok(site.answering_for(Arc::new(Peers::new(peers.to_vec())?)))
}

/// Begins to listen; where that is reached.
async fn listen(
    address: &str,
    router: Router,
    stopping: &CancellationToken,
) -> anyhow::Result<(String, JoinHandle<()>)> {
    let cannot_listen = |cause| CannotListen { address: address.to_owned(), cause };
    let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
    let url = format!("http://{}", listener.local_addr().map_err(cannot_listen)?);
    let serving = tokio::spawn(waybill_web::serve(listener, router, stopping.clone()));
    Ok((url, serving))
}

/// Returns when the process is told to stop. A second time, it ends at once.
pub(crate) async fn told_to_stop() -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(())
}
