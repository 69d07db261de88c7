//! The HTTP API from a terminal.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode, Url};
use serde_json::Value;

/// How long a server may take to answer, beyond what it is asked to wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that is asked.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Url,
}

/// A resource with its version.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    /// What it is.
    pub(crate) value: Value,
    /// Which version of it.
    pub(crate) etag: Option<String>,
}

/// Why a server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// It cannot be reached.
    #[error("{server} cannot be reached; is `waybill` running there? ({cause})")]
    Unreachable {
        /// Which server.
        server: Url,
        /// Why.
        cause: reqwest::Error,
    },
    /// It says no.
    #[error("{0}")]
    Refused(Refusal),
    /// The address of the server cannot be read.
    #[error("{0:?} is not the address of a server, such as http://127.0.0.1:8080")]
    BadServer(String),
}

/// A problem that a server answered with.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// The status.
    pub(crate) status: StatusCode,
    /// What it says.
    pub(crate) problem: Value,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |name: &str| self.problem.get(name).and_then(Value::as_str);
        write!(f, "{}", text("title").unwrap_or(self.status.as_str()))?;
        if let Some(detail) = text("detail") {
            write!(f, ": {detail}")?;
        }
        let errors = self.problem.get("errors").and_then(Value::as_array);
        for error in errors.into_iter().flatten() {
            let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
            write!(f, "\n  {} {}", part("pointer"), part("detail"))?;
        }
        Ok(())
    }
}

impl Client {
    /// A client of this server.
    pub(crate) fn new(server: &str) -> Result<Self, ClientError> {
        // The first of its kind in the process counts; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bad = || ClientError::BadServer(server.to_owned());
        let url = Url::parse(server).ok().filter(Url::has_host).ok_or_else(bad)?;
        let http =
            reqwest::Client::builder().user_agent(concat!("waybill/", env!("CARGO_PKG_VERSION")));
        let http = http.build();
        let server = url.clone();
        let http = http.map_err(|cause| ClientError::Unreachable { server, cause })?;
        Ok(Self { http, server: url })
    }

    /// Reads a resource or a list.
    pub(crate) async fn get(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Resource, ClientError> {
        let request = self.request(Method::GET, path).query(query).timeout(PATIENCE);
        resource(self.send(request).await?).await.map_err(|cause| self.unreachable(cause))
    }

    /// Reads a resource as soon as it is not the version seen, or nothing if it stays that for long.
    pub(crate) async fn get_newer(
        &self,
        path: &str,
        seen: &str,
        wait: Duration,
    ) -> Result<Option<Resource>, ClientError> {
        let request = self
            .request(Method::GET, path)
            .header("If-None-Match", seen)
            .header("Prefer", format!("wait={}", wait.as_secs()))
            .timeout(PATIENCE + wait);
        let response = self.send(request).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        resource(response).await.map(Some).map_err(|cause| self.unreachable(cause))
    }

    /// Asks for something to be done.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Result<Resource, ClientError> {
        let mut request = self.request(Method::POST, path).json(body).timeout(PATIENCE);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        resource(self.send(request).await?).await.map_err(|cause| self.unreachable(cause))
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let mut url = self.server.clone();
        url.set_path(path);
        self.http.request(method, url)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|cause| self.unreachable(cause))?;
        let status = response.status();
        if !(status.is_client_error() || status.is_server_error()) {
            return Ok(response);
        }
        let problem = response.json().await.unwrap_or(Value::Null);
        Err(ClientError::Refused(Refusal { status, problem }))
    }

    fn unreachable(&self, cause: reqwest::Error) -> ClientError {
        ClientError::Unreachable { server: self.server.clone(), cause }
    }
}

async fn resource(response: Response) -> Result<Resource, reqwest::Error> {
    let etag = response.headers().get("etag").and_then(|tag| tag.to_str().ok()).map(str::to_owned);
    Ok(Resource { etag, value: response.json().await? })
}

/// A text within a JSON value, by its path such as `shipment.carrier`; empty if it is not there.
pub(crate) fn text(value: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(value, |value, name| value.get(name));
    match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A number within a JSON value, by its path; 0 if it is not there.
pub(crate) fn number(value: &Value, path: &str) -> i64 {
    text(value, path).parse().unwrap_or_default()
}

/// The items of a list.
pub(crate) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("items").and_then(Value::as_array).into_iter().flatten()
}
