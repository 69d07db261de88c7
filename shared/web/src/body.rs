//! A request's body: its bytes, its media type, and the value that it stands for.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny};
use serde_path_to_error::{Path, Segment};

use crate::json::Json;
use crate::limits;
use crate::problem::{InvalidField, Problem};

/// Refuses a body that is compressed: a small one may unpack to a huge one.
pub(crate) fn refuse_encoded(headers: &HeaderMap) -> Result<(), Problem> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let detail = "the body must not be encoded: send it without Content-Encoding";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

/// Refuses a body that is not announced as JSON.
pub(crate) fn refuse_other_than_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let announced = match (types.next(), types.next()) {
        (Some(media_type), None) => media_type.to_str().is_ok_and(is_json),
        _ => false,
    };
    if announced {
        return Ok(());
    }
    let detail = "the body must be announced as Content-Type: application/json";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

fn is_json(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    let essence = parts.next().unwrap_or_default();
    let subtype = essence.strip_prefix("application/").unwrap_or_default();
    let json = subtype == "json" || subtype.strip_suffix("+json").is_some_and(|s| !s.is_empty());
    let utf8 = |part: String| match part.strip_prefix("charset=") {
        Some(charset) => charset.trim_matches('"') == "utf-8",
        None => true,
    };
    json && parts.all(utf8)
}

/// Takes the whole body, which must be small and arrive soon.
///
/// What is too large is still taken in, up to a bound: a connection that is closed on a client that
/// is still sending loses the answer.
pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let announced: Option<usize> = announced.and_then(|length| length.parse().ok());
    if announced.is_some_and(|length| length > limits::BODY_BYTES_TAKEN) {
        return Err(too_large());
    }
    let body = within(limits::BODY_READ, collect(body)).await;
    if announced.is_some_and(|length| length > limits::BODY_BYTES) {
        return Err(too_large());
    }
    body
}

async fn within<T>(
    patience: Duration,
    reading: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let too_slow = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
    tokio::time::timeout(patience, reading).await.map_err(too_slow)?
}

async fn collect(body: Body) -> Result<Vec<u8>, Problem> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut taken = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::malformed("the body did not arrive whole"))?;
        taken += chunk.len();
        if taken > limits::BODY_BYTES_TAKEN {
            break;
        }
        if taken <= limits::BODY_BYTES {
            bytes.extend_from_slice(&chunk);
        }
    }
    if taken > limits::BODY_BYTES { Err(too_large()) } else { Ok(bytes) }
}

fn too_large() -> Problem {
    let detail = format!("the body must not be larger than {} bytes", limits::BODY_BYTES);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// The value that a JSON text stands for.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| Problem::malformed("the body is not UTF-8"))?;
    // To know where something is wrong costs more than all the rest, and is of interest only then.
    serde_json::from_str(text)
        .and_then(|json: Json| T::deserialize(json))
        .or_else(|_| explain(text))
}

/// Reads it again, slowly, to say where it is wrong.
fn explain<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    // Reading it as a value stops at the first part that does not fit, and would call a text
    // "invalid" that is not JSON at all further down.
    serde_json::from_str::<IgnoredAny>(text)
        .map_err(|error| Problem::malformed(format!("the body is not JSON: {error}")))?;
    let json: Json = fit(&mut serde_json::Deserializer::from_str(text))?;
    fit(json)
}

fn fit<'de, D, T>(deserializer: D) -> Result<T, Problem>
where
    D: Deserializer<'de, Error = serde_json::Error>,
    T: Deserialize<'de>,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let detail = without_place(&error.inner().to_string());
        Problem::invalid(vec![InvalidField::new(pointer(error.path()), detail)])
    })
}

/// The parser adds a line and a column, which the pointer makes superfluous.
fn without_place(message: &str) -> String {
    message.rfind(" at line ").map_or(message, |end| &message[..end]).to_owned()
}

/// The path as a JSON pointer (RFC 6901).
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.extend(["/", &index.to_string()]),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_arrive_is_given_up() {
        let body = Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let problem = within(Duration::from_millis(10), collect(body)).await.unwrap_err();
        assert_eq!(problem.status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_malformed() {
        let broken = stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]);
        let problem = collect(Body::from_stream(broken)).await.unwrap_err();
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
    }
}
