//! A client that costs next to nothing: one connection, kept alive, one request after the other.

use std::io::{self, Write as _};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes that there is room for before a read.
const CHUNK: usize = 16 * 1024;

/// A connection to the server.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    received: Vec<u8>,
}

/// What the server said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    head: &'a str,
    pub(crate) body: &'a [u8],
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), received: Vec::new() })
    }

    pub(crate) async fn get(&mut self, path: &str) -> io::Result<Answer<'_>> {
        self.request.clear();
        write!(self.request, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        self.exchange().await
    }

    /// Posts JSON under an idempotency key.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        key: &str,
        body: &str,
    ) -> io::Result<Answer<'_>> {
        self.request.clear();
        write!(
            self.request,
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             idempotency-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        self.exchange().await
    }

    async fn exchange(&mut self) -> io::Result<Answer<'_>> {
        self.stream.write_all(&self.request).await?;
        self.received.clear();
        let head_end = loop {
            self.receive().await?;
            if let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let length = length(text(&self.received[..head_end])?)?;
        while self.received.len() < head_end + length {
            self.receive().await?;
        }
        let head = text(&self.received[..head_end])?;
        let status = head.get(9..12).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| odd("no status"))?;
        Ok(Answer { status, head, body: &self.received[head_end..head_end + length] })
    }

    async fn receive(&mut self) -> io::Result<()> {
        self.received.reserve(CHUNK);
        let count = self.stream.read_buf(&mut self.received).await?;
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl<'a> Answer<'a> {
    /// The value of a header, empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &'a str {
        header(self.head, name).unwrap_or_default()
    }
}

fn length(head: &str) -> io::Result<usize> {
    let length = header(head, "content-length").and_then(|length| length.parse().ok());
    length.ok_or_else(|| odd("no length"))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| odd("no text"))
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an answer with {what}"))
}
