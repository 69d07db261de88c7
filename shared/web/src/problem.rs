//! What goes wrong, as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use waybill_runtime::{CommandError, StoreError};

use crate::limits;

/// The media type of every answer that reports an error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says which kind of problem it is.
    #[schema(example = "about:blank")]
    r#type: &'static str,
    /// The name of the status.
    #[schema(example = "Unprocessable Content")]
    title: &'static str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599, example = 422)]
    status: u16,
    /// What is wrong with this request.
    #[schema(example = "the request is not valid")]
    detail: String,
    /// What is wrong with which part of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<InvalidField>,
    #[serde(skip)]
    #[schema(ignore)]
    retry_after: Option<u32>,
}

/// What is wrong with one part of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct InvalidField {
    /// A JSON pointer into the body, or `/` and the name of a query parameter.
    #[schema(example = "/lines/0/sku")]
    pub pointer: String,
    /// What is wrong with it.
    #[schema(example = "there is no product TEA-500")]
    pub detail: String,
}

impl InvalidField {
    /// What is wrong with what the pointer points to.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: shortened(detail.into()) }
    }
}

/// Explanations may repeat what the client sent, which may be long.
pub(crate) fn shortened(mut detail: String) -> String {
    if let Some((end, _)) = detail.char_indices().nth(limits::DETAIL) {
        detail.truncate(end);
        detail.push('…');
    }
    detail
}

impl Problem {
    /// A problem of this status.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            r#type: "about:blank",
            title: title(status),
            status: status.as_u16(),
            detail: shortened(detail.into()),
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// A problem whose status says everything.
    #[must_use]
    pub fn of(status: StatusCode) -> Self {
        Self::new(status, plain_detail(status))
    }

    /// 400: what was sent cannot be read.
    #[must_use]
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: there is no such thing.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 409: its state does not allow it.
    #[must_use]
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 422: it can be read and is not valid, in these parts.
    #[must_use]
    pub fn invalid(errors: Vec<InvalidField>) -> Self {
        let detail = "the request is not valid";
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    /// 503: it may work if repeated.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let retry_after = Some(limits::RETRY_AFTER_SECONDS);
        Self { retry_after, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What is wrong with which part of the request.
    #[must_use]
    pub fn errors(&self) -> &[InvalidField] {
        &self.errors
    }
}

/// RFC 9110 renamed two statuses; the library keeps the old names.
fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Content Too Large",
        StatusCode::UNPROCESSABLE_ENTITY => "Unprocessable Content",
        other => other.canonical_reason().unwrap_or("Error"),
    }
}

fn plain_detail(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "there is nothing at this address",
        StatusCode::METHOD_NOT_ALLOWED => "this address does not know the request's method",
        StatusCode::URI_TOO_LONG => "the request's address is too long",
        StatusCode::INTERNAL_SERVER_ERROR => "the service failed on this request",
        StatusCode::SERVICE_UNAVAILABLE => "the service cannot answer at the moment",
        other => title(other),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status(), self.retry_after);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl<R> From<CommandError<R>> for Problem
where
    R: std::error::Error + Into<Problem>,
{
    fn from(error: CommandError<R>) -> Self {
        let detail = error.to_string();
        match error {
            CommandError::Refused(refusal) => refusal.into(),
            CommandError::Stale { .. } => Self::new(StatusCode::PRECONDITION_FAILED, detail),
            CommandError::KeyReused => Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail),
            CommandError::Busy | CommandError::Unavailable | CommandError::UnknownOutcome => {
                Self::unavailable(detail)
            }
            CommandError::Failed(cause) => {
                tracing::error!(cause, "a command failed");
                Self::of(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_passing() {
            tracing::warn!(%error, "a read found no database");
            return Self::unavailable("the service's database does not answer");
        }
        tracing::error!(%error, "a read failed");
        Self::of(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
