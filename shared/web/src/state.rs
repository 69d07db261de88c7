//! What the routes of a service have in their hands.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use waybill_runtime::{Handle, Service};

/// A running service and whether it is to stop: the state of its routes, of which the framework makes
/// several copies for each request.
pub struct App<S: Service>(Arc<Parts<S>>);

struct Parts<S: Service> {
    handle: Handle<S>,
    stopping: CancellationToken,
}

impl<S: Service> App<S> {
    /// The state of a service's routes.
    pub fn new(handle: Handle<S>, stopping: CancellationToken) -> Self {
        Self(Arc::new(Parts { handle, stopping }))
    }

    /// The service.
    pub fn handle(&self) -> &Handle<S> {
        &self.0.handle
    }

    /// Cancelled when the server stops: whoever waits or streams comes to an end.
    pub fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }
}

// Derived, it would ask for `S: Clone`.
impl<S: Service> Clone for App<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Service> fmt::Debug for App<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("service", &S::NAME).finish_non_exhaustive()
    }
}
