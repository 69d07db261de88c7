//! Whether a process can do its work, as it says itself.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

/// Bytes of a report that are read.
const REPORT_BYTES: usize = 64 * 1024;

/// Asks processes for their readiness.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    http: reqwest::Client,
    within: Duration,
}

/// Why a process does not count as ready: what it does, to be read after its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotReady {
    /// Nothing came back in that time.
    Late(Duration),
    /// It cannot be reached, or what came back cannot be read.
    Silent(String),
    /// It says so, and why.
    Says(String),
    /// It answers something else.
    Answers(StatusCode),
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(within) => {
                write!(f, "does not answer within {}", humantime::format_duration(*within))
            }
            Self::Silent(cause) => write!(f, "does not answer ({cause})"),
            Self::Says(reasons) => write!(f, "is not ready: {reasons}"),
            Self::Answers(status) => write!(f, "answers {status} and not whether it is ready"),
        }
    }
}

/// What a process says of itself, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    status: String,
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize)]
struct Check {
    name: String,
    ready: bool,
    detail: String,
}

impl Asker {
    /// One that waits for so long for each answer, and asks only by plain HTTP.
    pub(crate) fn new(within: Duration) -> Result<Self, reqwest::Error> {
        // The first of its kind in the process counts; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(within)
            // What is asked is this process, on a connection of its own: not a proxy, not where
            // it sends others, not a connection that it forgot while it slept.
            .no_proxy()
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            // Reading the system's certificates would cost more than all the rest.
            .tls_certs_only([])
            .build()?;
        Ok(Self { http, within })
    }

    /// Asks the process at this address whether it can do its work.
    pub(crate) async fn ask(&self, process: &Url) -> Result<(), NotReady> {
        let mut url = process.clone();
        url.set_path("/readyz");
        url.set_query(Some("scope=process"));
        let response = self.http.get(url).send().await.map_err(|error| self.silent(&error))?;
        match response.status() {
            StatusCode::OK => Ok(()),
            StatusCode::SERVICE_UNAVAILABLE => Err(self.reasons(response).await),
            other => Err(NotReady::Answers(other)),
        }
    }

    fn silent(&self, error: &reqwest::Error) -> NotReady {
        if error.is_timeout() {
            return NotReady::Late(self.within);
        }
        // The outer errors repeat the URL, and an error of the system its number.
        let causes = std::iter::successors(error.source(), |&cause| cause.source());
        let text = |cause: &(dyn Error + 'static)| match cause.downcast_ref::<io::Error>() {
            Some(io) => io.kind().to_string(),
            None => cause.to_string(),
        };
        NotReady::Silent(causes.last().map_or_else(|| error.to_string(), text))
    }

    async fn reasons(&self, mut response: Response) -> NotReady {
        let status = response.status();
        let mut text = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if text.len() + chunk.len() <= REPORT_BYTES => text.extend(chunk),
                Ok(Some(_)) => return NotReady::Answers(status),
                Ok(None) => break,
                Err(error) => return self.silent(&error),
            }
        }
        let Report { status: says, checks } = serde_json::from_slice(&text).unwrap_or_default();
        let wrong = checks.iter().filter(|check| !check.ready);
        let wrong: Vec<_> = wrong.map(|it| format!("{}: {}", it.name, it.detail)).collect();
        match (wrong.is_empty(), says.is_empty()) {
            (false, _) => NotReady::Says(wrong.join(", ")),
            (true, false) => NotReady::Says(says),
            (true, true) => NotReady::Answers(status),
        }
    }
}
