//! The other processes of a deployment, where one answers for all: whether each is ready.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::ValueEnum as _;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _, Shared, WeakShared, join_all};
use futures_util::stream::FuturesUnordered;
use reqwest::Url;
use waybill_web::Check;

use crate::readiness::{Asker, NotReady};
use crate::services::Name;

/// How long the addresses of a peer may take to be found.
const LOOKUP: Duration = Duration::from_millis(700);
/// How long each replica of a peer may take to answer. With [`LOOKUP`], the whole takes under 2 s.
const ANSWER: Duration = Duration::from_secs(1);
/// Replicas of one peer that are asked.
const REPLICAS: usize = 32;

/// A service that other processes serve, and where: each address of the host is a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The service.
    pub(crate) name: Name,
    url: Url,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "write it as NAME=URL, such as order=http://order:8080".to_owned();
        let (name, url) = text.split_once('=').ok_or_else(form)?;
        let names = Name::value_variants().iter();
        let Some(name) = names.copied().find(|known| known.as_str() == name) else {
            let names: Vec<_> = Name::value_variants().iter().map(|name| name.as_str()).collect();
            return Err(format!("{name:?} is no service; it is one of {}", names.join(", ")));
        };
        let url = Url::parse(url).ok().filter(is_bare_http).ok_or_else(form)?;
        Ok(Self { name, url })
    }
}

/// Whether it says where a server is, and nothing more.
fn is_bare_http(url: &Url) -> bool {
    let more = url.query().is_some() || url.fragment().is_some() || url.path() != "/";
    let who = !url.username().is_empty() || url.password().is_some();
    url.scheme() == "http" && url.has_host() && !more && !who
}

/// Services and peers that make no process.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BadDeployment {
    /// It can be served once.
    #[error("the service {0} is named twice")]
    HostedTwice(&'static str),
    /// It is not elsewhere.
    #[error("this process serves {0} itself, so that cannot be a peer of it")]
    Hosted(&'static str),
    /// It has one address, which may stand for many.
    #[error("the peer {0} is named twice; one URL stands for all replicas behind its host name")]
    PeerTwice(&'static str),
}

/// Whether a process can host these services and have these peers.
pub(crate) fn check(hosted: &[Name], peers: &[Peer]) -> Result<(), BadDeployment> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = hosted.iter().find(|name| !seen.insert(name.as_str())) {
        return Err(BadDeployment::HostedTwice(twice.as_str()));
    }
    if let Some(peer) = peers.iter().find(|peer| hosted.contains(&peer.name)) {
        return Err(BadDeployment::Hosted(peer.name.as_str()));
    }
    match peers.iter().find(|peer| !seen.insert(peer.name.as_str())) {
        Some(twice) => Err(BadDeployment::PeerTwice(twice.name.as_str())),
        None => Ok(()),
    }
}

/// One round of questions: a check for each peer.
type Round = BoxFuture<'static, Vec<Check>>;

/// The peers of this process. Who asks while a round is under way shares it, so that a flood of
/// questions here is none there; what it hears began [`LOOKUP`] and [`ANSWER`] ago at most.
pub(crate) struct Peers {
    asker: Asker,
    all: Vec<Peer>,
    under_way: Mutex<Option<WeakShared<Round>>>,
}

impl Peers {
    /// These peers.
    pub(crate) fn new(peers: Vec<Peer>) -> Result<Self, reqwest::Error> {
        Ok(Self { asker: Asker::new(ANSWER)?, all: peers, under_way: Mutex::default() })
    }

    /// The round that is under way, or a new one.
    fn round(&self) -> Shared<Round> {
        // It is whole between any two statements, so a panic elsewhere does not spoil it.
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let open = under_way.as_ref().and_then(WeakShared::upgrade);
        if let Some(round) = open.filter(|round| round.peek().is_none()) {
            return round;
        }
        let round = ask_all(self.asker.clone(), self.all.clone()).boxed().shared();
        *under_way = round.downgrade();
        round
    }
}

impl waybill_web::Peers for Peers {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        self.round().boxed()
    }
}

async fn ask_all(asker: Asker, peers: Vec<Peer>) -> Vec<Check> {
    join_all(peers.iter().map(|peer| ask(&asker, peer))).await
}

/// Asks the replicas of a peer, wherever they are at this moment.
async fn ask(asker: &Asker, peer: &Peer) -> Check {
    let answer = match addresses(&peer.url).await {
        Ok(addresses) => ask_replicas(asker, &peer.url, &addresses).await,
        Err(why) => Err(why),
    };
    match answer {
        Ok(()) => Check::ready(peer.name.as_str()),
        Err(why) => Check::not_ready(peer.name.as_str(), why),
    }
}

/// The addresses of a host: one for each replica.
async fn addresses(url: &Url) -> Result<Vec<SocketAddr>, String> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let lookup = tokio::net::lookup_host((host, url.port_or_known_default().unwrap_or_default()));
    let found = match tokio::time::timeout(LOOKUP, lookup).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(format!("the host {host} is not found ({error})")),
        Err(_) => {
            let within = humantime::format_duration(LOOKUP);
            return Err(format!("the host {host} is not found within {within}"));
        }
    };
    let once: BTreeSet<_> = found.take(REPLICAS).collect();
    Ok(once.into_iter().collect())
}

/// Ready as soon as one replica says so; otherwise what is wrong with all of them.
async fn ask_replicas(asker: &Asker, url: &Url, addresses: &[SocketAddr]) -> Result<(), String> {
    let ask = async |address: SocketAddr| match at(url, address) {
        Some(url) => (address, asker.ask(&url).await),
        None => (address, Err(NotReady::Silent("it has no URL".to_owned()))),
    };
    let mut answers: FuturesUnordered<_> = addresses.iter().map(|&one| ask(one)).collect();
    let mut wrong = Vec::with_capacity(addresses.len());
    while let Some((address, answer)) = answers.next().await {
        match answer {
            Ok(()) => return Ok(()),
            Err(why) => wrong.push((address, why)),
        }
    }
    wrong.sort_by_key(|(address, _)| *address);
    let wrong: Vec<_> = wrong.iter().map(|(address, why)| format!("{address} {why}")).collect();
    let wrong = wrong.join("; ");
    Err(match addresses.len() {
        1 => wrong,
        replicas => format!("none of {replicas} replicas is ready: {wrong}"),
    })
}

/// The URL of one replica.
fn at(url: &Url, address: SocketAddr) -> Option<Url> {
    let mut url = url.clone();
    url.set_ip_host(address.ip()).ok()?;
    url.set_port(Some(address.port())).ok()?;
    Some(url)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use waybill_web::Peers as _;

    use super::*;

    const READY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    const BROKEN: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n\
        {\"status\":\"not_ready\",\"checks\":[\
        {\"name\":\"order.relay\",\"ready\":true,\"detail\":\"\"},\
        {\"name\":\"order.writer\",\"ready\":false,\"detail\":\"starting\"}]}";

    /// A server that gives everyone this answer after a while; its address, and how many came.
    async fn answering(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    let length = stream.read(&mut request).await.unwrap();
                    let asked = "GET /readyz?scope=process HTTP/1.1\r\n";
                    assert!(request[..length].starts_with(asked.as_bytes()));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    stream.write_all(answer.as_bytes()).await.unwrap();
                });
            }
        });
        (address, count)
    }

    /// Where nobody listens.
    async fn dead() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    /// Where connections are accepted and nothing is ever answered.
    async fn silent() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    async fn asked(addresses: &[SocketAddr]) -> Result<(), String> {
        let url = Url::parse("http://order:8080").unwrap();
        ask_replicas(&Asker::new(ANSWER).unwrap(), &url, addresses).await
    }

    #[tokio::test]
    async fn one_replica_that_is_ready_will_do_and_nobody_waits_for_the_others() {
        let (ready, _) = answering(READY).await;
        let (silent, _listener) = silent().await;
        let (broken, _) = answering(BROKEN).await;
        let all = [dead().await, silent, broken, ready];
        assert_eq!(tokio::time::timeout(ANSWER / 2, asked(&all)).await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn where_no_replica_is_ready_each_is_named_with_what_is_wrong() {
        let (broken, _) = answering(BROKEN).await;
        let dead = dead().await;
        let (silent, _listener) = silent().await;
        let wrong = asked(&[dead]).await.unwrap_err();
        assert_eq!(wrong, format!("{dead} does not answer (connection refused)"));
        let all = [dead, silent, broken];
        let wrong = tokio::time::timeout(2 * ANSWER, asked(&all)).await.unwrap().unwrap_err();
        assert!(wrong.starts_with("none of 3 replicas is ready: "), "{wrong}");
        for part in [
            format!("{dead} does not answer (connection refused)"),
            format!("{silent} does not answer within 1s"),
            format!("{broken} is not ready: order.writer: starting"),
        ] {
            assert!(wrong.contains(&part), "{part} in {wrong}");
        }
    }

    #[tokio::test]
    async fn what_is_no_report_is_not_ready_either() {
        for (answer, said) in [
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "answers 404 Not Found and"),
            ("HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", "answers 302 Found and not"),
            ("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy", "answers 503 Service"),
            ("nonsense\r\n\r\n", "does not answer (invalid HTTP"),
            ("", "does not answer (connection closed before"),
            ("HTTP/1.1 503 Busy\r\n\r\n{\"status\":\"stopping\"}", "is not ready: stopping"),
        ] {
            let wrong = asked(&[answering(answer).await.0]).await.unwrap_err();
            assert!(wrong.contains(said), "{said} in {wrong}");
        }
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_shares_one_round() {
        let (address, count) = answering(READY).await;
        let peer = format!("order=http://localhost:{}", address.port()).parse().unwrap();
        let peers = Peers::new(vec![peer]).unwrap();
        for rounds in 1..=2 {
            for checks in join_all((0..50).map(|_| peers.checks())).await {
                assert_eq!(checks, [Check::ready("order")]);
            }
            assert_eq!(count.load(Ordering::SeqCst), rounds);
        }
    }

    #[tokio::test]
    async fn a_host_that_is_not_there_is_named() {
        let peer: Peer = "user=http://nobody.invalid:8080".parse().unwrap();
        let checks = Peers::new(vec![peer]).unwrap().checks().await;
        let report = serde_json::to_value(&checks).unwrap();
        assert_eq!((&report[0]["name"], &report[0]["ready"]), (&"user".into(), &false.into()));
        let detail = report[0]["detail"].as_str().unwrap();
        assert!(detail.starts_with("the host nobody.invalid is not found"), "{detail}");
    }

    #[test]
    fn a_peer_is_a_service_and_where_a_server_is() {
        for text in ["order=http://order:8080", "audit=http://127.0.0.1/", "user=http://[::1]:80"] {
            assert!(text.parse::<Peer>().is_ok(), "{text}");
        }
        for text in [
            "order",
            "order=",
            "order=order:8080",
            "order=https://order",
            "order=http://",
            "order=http://order/v1",
            "order=http://order?x",
            "order=http://ada@order",
        ] {
            let said = text.parse::<Peer>().unwrap_err();
            assert!(said.starts_with("write it as NAME=URL"), "{text}: {said}");
        }
        let said = "shop=http://shop".parse::<Peer>().unwrap_err();
        let names = "order, inventory, logistics, user, audit";
        assert_eq!(said, format!("\"shop\" is no service; it is one of {names}"));
    }
}
