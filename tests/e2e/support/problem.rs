//! Errors as RFC 9457 writes them.

use serde_json::Value;

use super::client::Reply;

impl Reply {
    /// The reply itself, if it is a problem of this status in every detail.
    #[track_caller]
    pub(crate) fn problem(self, status: u16) -> Self {
        let reply = self.expect(status);
        assert_eq!(reply.header("content-type"), "application/problem+json", "{reply:?}");
        assert_eq!(reply.body["type"], "about:blank", "{reply:?}");
        assert_eq!(reply.body["status"], status, "{reply:?}");
        for member in ["title", "detail"] {
            let text = reply.body[member].as_str();
            assert!(text.is_some_and(|text| !text.is_empty()), "{member} of {reply:?}");
        }
        reply
    }

    /// The reply itself, if it is a 422 about exactly these parts of the request.
    #[track_caller]
    pub(crate) fn invalid(self, pointers: &[&str]) -> Self {
        let reply = self.problem(422);
        let errors = reply.body["errors"].as_array().map_or(&[][..], Vec::as_slice);
        let found: Vec<&str> = errors.iter().filter_map(|e| e["pointer"].as_str()).collect();
        assert_eq!(found, pointers, "{reply:?}");
        let explained = |error: &Value| error["detail"].as_str().is_some_and(|d| !d.is_empty());
        assert!(errors.iter().all(explained), "{reply:?}");
        reply
    }
}
