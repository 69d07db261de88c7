//! Requests byte by byte, for what no HTTP client would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Client, PATIENCE, Stopwatch};

/// A connection to a server, and what has come back over it so far.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(client: &Client) -> Self {
        let address = client.url("").replace("http://", "");
        let stream = TcpStream::connect(address).await.expect("the server listens");
        Self { stream, received: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("the server reads");
    }

    /// The same to a server that may have closed the connection.
    pub(crate) async fn try_send(&mut self, text: &str) -> std::io::Result<()> {
        self.stream.write_all(text.as_bytes()).await
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn close_half(&mut self) {
        self.stream.shutdown().await.expect("the connection is open");
    }

    /// Reads until this has come.
    pub(crate) async fn until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.received).contains(text) {
            assert!(self.read().await, "the connection was closed before {text}");
        }
    }

    /// Reads until the connection is closed, which the server may do before it has read all; all
    /// that came.
    pub(crate) async fn rest(mut self) -> String {
        while self.read().await {}
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Whether more came before the end.
    async fn read(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.received);
        let read = tokio::time::timeout(PATIENCE, reading).await;
        matches!(read.expect("the server answers or closes the connection"), Ok(1..))
    }
}

/// Sends this, and returns what comes back until the connection is closed.
pub(crate) async fn ask(client: &Client, request: &str) -> String {
    let mut connection = Connection::open(client).await;
    connection.send(request).await;
    connection.rest().await
}

/// How long a server that was sent this, and nothing more, keeps the connection open.
pub(crate) async fn until_closed(client: &Client, request: &str) -> Duration {
    let mut connection = Connection::open(client).await;
    let watch = Stopwatch::start();
    connection.send(request).await;
    connection.rest().await;
    watch.elapsed()
}
