//! What the routes of a service have in their hands.

use std::fmt;

use tokio_util::sync::CancellationToken;
use waybill_runtime::{Handle, Service};

/// A running service and whether it is to stop: the state of its routes.
pub struct App<S: Service> {
    /// The service.
    pub handle: Handle<S>,
    /// Cancelled when the server stops: whoever waits or streams comes to an end.
    pub stopping: CancellationToken,
}

impl<S: Service> App<S> {
    /// The state of a service's routes.
    pub fn new(handle: Handle<S>, stopping: CancellationToken) -> Self {
        Self { handle, stopping }
    }
}

// Derived, it would ask for `S: Clone`.
impl<S: Service> Clone for App<S> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), stopping: self.stopping.clone() }
    }
}

impl<S: Service> fmt::Debug for App<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("service", &S::NAME).finish_non_exhaustive()
    }
}
