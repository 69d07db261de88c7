//! Requests byte by byte, for what no HTTP client would send.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Client, PATIENCE};

async fn connect(client: &Client) -> TcpStream {
    let address = client.url("").replace("http://", "");
    TcpStream::connect(address).await.expect("the server listens")
}

/// What a server sends until it closes the connection. It may close it before it has read all.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = async {
        while let Ok(1..) = stream.read_buf(&mut answer).await {}
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends this, and returns what comes back until the connection is closed.
pub(crate) async fn ask(client: &Client, request: &str) -> String {
    let mut stream = connect(client).await;
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    rest(&mut stream).await
}

/// How long a server that was sent this, and nothing more, keeps the connection open.
pub(crate) async fn until_closed(client: &Client, request: &str) -> Duration {
    let mut stream = connect(client).await;
    let began = Instant::now();
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    rest(&mut stream).await;
    began.elapsed()
}
