//! A wire between the runtime and Postgres that can be cut around a commit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Where a commit is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It never reaches the server.
    Before,
    /// The server has done it, and its answer never arrives.
    After,
}

/// Passes everything on, until it is told to cut the next commit.
#[derive(Clone)]
pub(crate) struct Proxy {
    next: Arc<Mutex<Option<Cut>>>,
    cuts: Arc<AtomicUsize>,
    port: u16,
}

impl Proxy {
    /// Stands before the Postgres at this address.
    pub(crate) async fn before(url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self { next: Arc::default(), cuts: Arc::default(), port };
        let (passing, server) = (proxy.clone(), host(url).to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (proxy, server) = (passing.clone(), server.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    // However a connection ends, both of its sides learn of it by its end.
                    let _ = proxy.pass(client, server).await;
                });
            }
        });
        proxy
    }

    /// The address by which this is reached.
    pub(crate) fn url(&self, url: &str) -> String {
        url.replace(host(url), &format!("127.0.0.1:{}", self.port))
    }

    pub(crate) fn cut_next_commit(&self, cut: Cut) {
        *self.next.lock().unwrap() = Some(cut);
    }

    /// How many commits were cut.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::SeqCst)
    }

    async fn pass(&self, mut client: TcpStream, mut server: TcpStream) -> std::io::Result<()> {
        let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                length = client.read(&mut asked) => {
                    let asked = &asked[..length?];
                    if asked.is_empty() {
                        return Ok(());
                    }
                    let commits = asked.windows(7).any(|text| text.eq_ignore_ascii_case(b"commit\0"));
                    let cut = if commits { self.next.lock().unwrap().take() } else { None };
                    if cut != Some(Cut::Before) {
                        server.write_all(asked).await?;
                    }
                    if let Some(cut) = cut {
                        // What was written before is answered before.
                        let mut ended = cut == Cut::Before;
                        while !ended {
                            let length = server.read(&mut answered).await?;
                            assert!(length > 0, "the server answers");
                            let has = |tag: &[u8]| {
                                answered[..length].windows(tag.len()).any(|text| text == tag)
                            };
                            // What was refused before is taken back by its commit.
                            ended = has(b"COMMIT\0") || has(b"ROLLBACK\0");
                        }
                        self.cuts.fetch_add(1, Ordering::SeqCst);
                        return Ok(());
                    }
                }
                length = server.read(&mut answered) => {
                    let answered = &answered[..length?];
                    if answered.is_empty() {
                        return Ok(());
                    }
                    client.write_all(answered).await?;
                }
            }
        }
    }
}

fn host(url: &str) -> &str {
    let (_, after_user) = url.split_once('@').expect("the address names a user");
    after_user.split_once('/').expect("the address names a database").0
}
