//! Requests as spans: whatever follows from a request is below its span, which is below the one
//! that the client named, if it named one. Names follow OpenTelemetry's conventions for HTTP.

use std::borrow::Cow;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::response::Response;
use waybill_runtime::Clock;
use waybill_runtime::trace::{Span, SpanKind, Tracer, Value};

use crate::command::traceparent;

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Where the routes are that people call. The others, such as health and metrics, are asked every
/// few seconds by machines, and would bury these.
const TRACED: &str = "/v1/";

/// A request that is told of, from its head to the head of its answer.
pub(crate) struct Traced(Option<Span>);

impl Traced {
    /// Begins, where anybody is told and the route is one that people call.
    pub(crate) fn begin(tracer: &Tracer, clock: &Clock, request: &mut Request) -> Self {
        if !tracer.is_on() {
            return Self(None);
        }
        let matched = request.extensions().get::<MatchedPath>();
        let Some(route) = matched.filter(|route| route.as_str().starts_with(TRACED)).cloned()
        else {
            return Self(None);
        };
        let span = begin(tracer, clock, request, route.as_str());
        // The handler finds it where it would find the client's.
        let ours = span.traceparent().and_then(|ours| HeaderValue::try_from(ours).ok());
        if let Some(ours) = ours {
            request.headers_mut().insert(TRACEPARENT, ours);
        }
        Self(Some(span))
    }

    /// Ends with this answer.
    pub(crate) fn end(self, clock: &Clock, response: &Response) {
        let Some(mut span) = self.0 else { return };
        let status = response.status();
        span.describe(|| [("http.response.status_code", i64::from(status.as_u16()).into())]);
        if status.is_server_error() {
            span.describe(|| [("error.type", status.as_str().to_owned().into())]);
            // The status says it all.
            span.fail(String::new);
        }
        span.end(clock.now());
    }
}

fn begin(tracer: &Tracer, clock: &Clock, request: &Request, route: &str) -> Span {
    let (method, began) = (known_method(request.method()), clock.now());
    let parent = traceparent(request.headers());
    let name = || Cow::Owned(format!("{method} {route}"));
    let mut span = tracer.begin(SpanKind::Server, &parent, began, name);
    span.describe(|| {
        let path = Value::from(request.uri().path().to_owned());
        [
            ("http.request.method", method.into()),
            ("http.route", route.to_owned().into()),
            ("url.path", path),
            ("url.scheme", "http".into()),
        ]
    });
    span
}

/// A client may invent methods, but routes know only these.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}
