//! Single resources: their versions, and waiting for a newer one.

use std::time::Duration;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use waybill_runtime::{Row, Service, Version};

use crate::limits;
use crate::problem::Problem;
use crate::state::App;
use crate::tags::{Tags, etag};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What a client has seen of a resource, and how long it waits for something newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    tags: Option<Tags>,
    wait_seconds: Option<u64>,
}

impl<S: Send + Sync> FromRequestParts<S> for Seen {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::read(&parts.headers)
    }
}

impl Seen {
    fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let tags = Tags::read(&IF_NONE_MATCH, &headers.get_all(IF_NONE_MATCH))?;
        // Nothing seen means that anything is news: there is nothing to wait for.
        let wait_seconds = tags.as_ref().and_then(|_| preferred_wait(headers));
        Ok(Self { tags, wait_seconds })
    }

    fn includes(&self, version: Version) -> bool {
        match &self.tags {
            None => false,
            Some(tags) => tags.weak().is_none_or(|versions| versions.contains(&version)),
        }
    }

    /// The versions that a change must lead away from, and how long it may take.
    fn patience(&self) -> Option<(Vec<Version>, Duration)> {
        let versions = self.tags.as_ref()?.weak()?;
        Some((versions, Duration::from_secs(self.wait_seconds?)))
    }
}

/// The `wait` of RFC 7240, section 4.3, cut to the longest. What cannot be read is ignored, as
/// preferences are.
fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    let lines = headers.get_all(PREFER).iter().filter_map(|line| line.to_str().ok());
    let mut preferences = lines.flat_map(|line| line.split(','));
    let seconds = preferences.find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("wait").then(|| value.to_owned())
    })?;
    let digits = seconds.bytes().all(|byte| byte.is_ascii_digit());
    let seconds: u64 = seconds.parse().ok().filter(|_| digits)?;
    Some(seconds.min(limits::WAIT_SECONDS))
}

impl<S: Service> App<S> {
    /// Shows a row, if the client has not seen this version of it yet.
    pub async fn show<R: Row, T: Serialize>(
        &self,
        key: &R::Key,
        seen: &Seen,
        view: impl FnOnce(&R) -> T,
    ) -> Result<Response, Problem> {
        let row = self.read::<R>(key, seen).await?;
        let row = row.ok_or_else(|| Problem::of(StatusCode::NOT_FOUND))?;
        Ok(seen.answer(row.version(), || view(&row)))
    }

    async fn read<R: Row>(&self, key: &R::Key, seen: &Seen) -> Result<Option<R>, Problem> {
        if let Some((versions, patience)) = seen.patience() {
            tokio::select! {
                row = self.handle().get_newer::<R>(key, &versions, patience) => return Ok(row?),
                () = self.stopping().cancelled() => {}
            }
        }
        Ok(self.handle().get::<R>(key).await?)
    }
}

impl Seen {
    /// The resource, or that it is still what the client has seen.
    pub fn answer<T: Serialize>(&self, version: Version, view: impl FnOnce() -> T) -> Response {
        let mut response = if self.includes(version) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            Json(view()).into_response()
        };
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(&etag(version)) {
            headers.insert(ETAG, tag);
        }
        let applied = self.wait_seconds.map(|seconds| format!("wait={seconds}"));
        if let Some(Ok(applied)) = applied.map(HeaderValue::try_from) {
            headers.insert(PREFERENCE_APPLIED, applied);
        }
        response
    }
}
