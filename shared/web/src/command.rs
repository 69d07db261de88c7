//! A command over HTTP: its body, and what its headers say beside it.

use axum::extract::{FromRequest, Request};
use axum::http::header::{ETAG, IF_MATCH, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use waybill_runtime::{Answer, RequestKey, Service, Version};

use crate::body;
use crate::limits;
use crate::problem::Problem;
use crate::state::App;
use crate::tags::{Tags, etag};
use crate::trace::TRACEPARENT;

/// Names a request that may be repeated.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Requests are not authenticated here, so all that is known is the way they came.
const ACTOR: &str = "http";

/// A command's body and terms.
#[derive(Debug)]
pub struct Submitted<T> {
    /// What the body says.
    pub body: T,
    /// What the headers say.
    pub terms: Terms,
}

/// A command's body and terms, where an empty body stands for `{}`.
#[derive(Debug)]
pub struct SubmittedOrEmpty<T>(pub Submitted<T>);

/// What a command's headers say.
#[derive(Debug)]
pub struct Terms {
    key: Option<RequestKey>,
    if_match: Option<Vec<Version>>,
    traceparent: String,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Submitted<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let received = Received::read(request).await?;
        body::refuse_other_than_json(&received.headers)?;
        received.submitted()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for SubmittedOrEmpty<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let received = Received::read(request).await?;
        if received.body.is_empty() {
            let terms = received.terms()?;
            return Ok(Self(Submitted { body: body::parse(b"{}")?, terms }));
        }
        body::refuse_other_than_json(&received.headers)?;
        received.submitted().map(Self)
    }
}

/// A request that arrived whole.
struct Received {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Received {
    async fn read(request: Request) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let body = body::read(&parts.headers, body).await?;
        body::refuse_encoded(&parts.headers)?;
        let path = parts.uri.path().to_owned();
        Ok(Self { method: parts.method, path, headers: parts.headers, body })
    }

    fn submitted<T: DeserializeOwned>(&self) -> Result<Submitted<T>, Problem> {
        let terms = self.terms()?;
        Ok(Submitted { body: body::parse(&self.body)?, terms })
    }

    fn terms(&self) -> Result<Terms, Problem> {
        let fingerprint = || fingerprint(self.method.as_str(), &self.path, &self.body);
        let key = idempotency_key(&self.headers)?;
        let if_match = Tags::read(&IF_MATCH, &self.headers.get_all(IF_MATCH))?;
        Ok(Terms {
            key: key.map(|key| RequestKey { key, fingerprint: fingerprint() }),
            if_match: if_match.and_then(|tags| tags.strong()),
            traceparent: traceparent(&self.headers),
        })
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    if keys.next().is_some() {
        return Err(Problem::malformed("there must be one Idempotency-Key at most"));
    }
    let key = key.as_bytes();
    if key.is_empty()
        || key.len() > limits::IDEMPOTENCY_KEY
        || !key.iter().all(u8::is_ascii_graphic)
    {
        let longest = limits::IDEMPOTENCY_KEY;
        let detail = format!("Idempotency-Key must be 1 to {longest} visible ASCII characters");
        return Err(Problem::malformed(detail));
    }
    Ok(Some(String::from_utf8_lossy(key).into_owned()))
}

/// A digest of method, path and body, each with its length before it, so that no two requests
/// run together into the same bytes.
fn fingerprint(method: &str, path: &str, body: &[u8]) -> String {
    let mut digest = Sha256::new();
    for part in [method.as_bytes(), path.as_bytes(), body] {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    hex::encode(digest.finalize())
}

/// The W3C trace context, empty where there is none that is well-formed.
pub(crate) fn traceparent(headers: &HeaderMap) -> String {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
        (Some(text), None) if is_traceparent(text) => text.to_owned(),
        _ => String::new(),
    }
}

/// `version-trace-parent-flags` in lower-case hex, of the one version that exists.
fn is_traceparent(text: &str) -> bool {
    let fields: Vec<&str> = text.split('-').collect();
    let &[version, trace, parent, flags] = fields.as_slice() else { return false };
    let hex = |field: &str, length: usize| {
        field.len() == length && field.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |field: &str| field.bytes().any(|b| b != b'0');
    version == "00"
        && hex(trace, 32)
        && some(trace)
        && hex(parent, 16)
        && some(parent)
        && hex(flags, 2)
}

impl<S: Service> App<S>
where
    Problem: From<S::Refusal>,
{
    /// Carries out a command and answers once that is on disk.
    pub async fn submit(&self, terms: Terms, command: S::Command) -> Result<Response, Problem> {
        let request = waybill_runtime::Request {
            command,
            id: self.handle().ids().next(),
            key: terms.key,
            if_match: terms.if_match,
            actor: ACTOR.to_owned(),
            traceparent: terms.traceparent,
        };
        Ok(respond(self.handle().submit(request).await?))
    }
}

fn respond(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, json_body(answer.body)).into_response();
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&etag(answer.version)) {
        headers.insert(ETAG, tag);
    }
    if let (false, Ok(location)) =
        (answer.location.is_empty(), HeaderValue::from_str(&answer.location))
    {
        headers.insert(LOCATION, location);
    }
    response
}

/// A text that already is JSON.
fn json_body(json: String) -> impl IntoResponse {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], json)
}
