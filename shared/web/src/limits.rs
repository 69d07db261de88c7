//! Every bound of the HTTP edge, with its unit in its name or type.

use std::time::Duration;

pub use waybill_runtime::limits::PAGE_MAX;

/// Bytes of a request's body.
pub const BODY_BYTES: usize = 64 * 1024;
/// Bytes of a body that is too large which are still taken in, so that its sender hears so.
pub const BODY_BYTES_TAKEN: usize = 1024 * 1024;
/// How long a body may take to arrive.
pub const BODY_READ: Duration = Duration::from_secs(15);
/// Bytes of a request's target: path and query.
pub const TARGET_BYTES: usize = 8 * 1024;
/// Bytes of a request's headers, its first line included.
pub const HEADER_BYTES: usize = 16 * 1024;
/// Headers of one request.
pub const HEADERS: usize = 64;
/// How long headers may take to arrive, the silence before them included.
pub const HEADER_READ: Duration = Duration::from_secs(10);
/// Connections open at one time; the next ones wait in the system's queue.
pub const CONNECTIONS: usize = 16_384;
/// Pause after an accept that failed for want of something, such as file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long open requests may take to finish once the server stops.
pub const DRAIN: Duration = Duration::from_secs(5);
/// Characters of an idempotency key.
pub const IDEMPOTENCY_KEY: usize = 255;
/// Seconds that a client may wait for a change.
pub const WAIT_SECONDS: u64 = 60;
/// How long the gauges of a process may take to be read; what is not known then is left out.
pub const SCRAPE: Duration = Duration::from_secs(3);
/// Items of a page if the client does not say.
pub const PAGE_DEFAULT: usize = 50;
/// Characters of one explanation in an answer, which may repeat what the client sent.
pub const DETAIL: usize = 300;
/// Seconds after which a client may try again.
pub const RETRY_AFTER_SECONDS: u32 = 1;
