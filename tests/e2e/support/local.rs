//! Servers as processes of this machine.

use super::client::Client;
use super::options::Options;
use super::process::{Ended, Process, run};
use super::store::Store;

/// How many processes of the past are remembered, for their logs.
const PAST: usize = 3;

/// One process on a store of its own. Fields are dropped in their order: the process ends before
/// its store.
#[derive(Debug)]
pub(crate) struct Local {
    pub(super) process: Process,
    /// The last of those that were killed or stopped before it.
    past: Vec<Process>,
    pub(super) store: Store,
}

impl Local {
    /// A process on a fresh store; where it serves.
    pub(super) async fn start(store: Store, options: &Options) -> (Self, String) {
        let (process, url) = options.serve(&store).await;
        (Self { process, past: Vec::new(), store }, url)
    }

    pub(super) async fn kill(&mut self) {
        self.process.kill().await;
    }

    pub(super) async fn stop(&mut self) {
        self.process.stop().await;
    }

    /// Another process on the same data; where it serves.
    pub(super) async fn restart(&mut self, options: &Options) -> String {
        let (process, url) = options.serve(&self.store).await;
        self.succeeds(process);
        url
    }

    /// The same for one that may end before it serves.
    pub(super) async fn try_restart(&mut self, options: &Options) -> Option<String> {
        let (process, served) = options.try_serve(&self.store).await;
        self.succeeds(process);
        served.ok()
    }

    /// Another process on the same data that has only just been started.
    pub(super) fn begin_restart(&mut self, options: &Options) {
        let process = options.spawn(&self.store);
        self.succeeds(process);
    }

    fn succeeds(&mut self, process: Process) {
        self.past.push(std::mem::replace(&mut self.process, process));
        let old = self.past.len().saturating_sub(PAST);
        self.past.drain(..old);
    }

    /// One more process on the same data, and its client.
    pub(super) async fn beside(&self, options: &Options) -> (Process, Client) {
        let (process, url) = options.serve(&self.store).await;
        let client = Client::new(url);
        client.ready().await;
        (process, client)
    }

    pub(super) async fn verify(&self) -> Ended {
        run(&[vec!["verify".to_owned()], self.store.arguments()].concat()).await
    }
}
