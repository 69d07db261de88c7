//! Wake-ups between processes that share an event store on Postgres, by LISTEN and NOTIFY.
//!
//! A notification is only a hint: it may be lost, and every reader looks by itself now and then.

use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::database::in_time;
use crate::event::Position;
use crate::event_store::EventStore;
use crate::limits;
use crate::sql;

const CHANNEL: &str = "waybill_log";

/// Notifies other processes that this one appended: after the commits, and however many there were
/// while the last notification was on its way, only once. Each NOTIFY takes a lock that all commits
/// of the database queue for.
pub(crate) async fn tell(store: EventStore, ending: CancellationToken) {
    let mut appends = store.appends();
    while let Some(Ok(())) = ending.run_until_cancelled(appends.changed()).await {
        let head = *appends.borrow_and_update();
        // A number of ours in a constant text: the statement takes no parameters.
        let notify = sql::plain(format!("notify {CHANNEL}, '{head}'"));
        let notifying = async {
            let mut connection = store.database().reader().await?;
            notify.execute(&mut connection).await?;
            connection.give_back();
            Ok(())
        };
        if let Err(error) = in_time(limits::READ, notifying).await {
            debug!(%error, "could not notify other processes; they look by themselves");
        }
    }
}

/// Hears when other processes appended.
pub(crate) async fn hear(url: String, store: EventStore, ending: CancellationToken) {
    while !ending.is_cancelled() {
        if let Err(error) = listen(&url, &store, &ending).await {
            debug!(%error, "cannot listen to other processes; looking by itself meanwhile");
        }
        ending.run_until_cancelled(tokio::time::sleep(limits::POLL)).await;
    }
}

async fn listen(
    url: &str,
    store: &EventStore,
    ending: &CancellationToken,
) -> Result<(), sql::Error> {
    let server = sql::Server::at(&url.parse()?)?;
    let listening = tokio::time::timeout(limits::LISTEN, server.listen(CHANNEL));
    let Some(listening) = ending.run_until_cancelled(listening).await else { return Ok(()) };
    let mut heads = listening.map_err(|_| sql::Error::silence(limits::LISTEN.as_secs()))??;
    while let Some(head) = ending.run_until_cancelled(heads.next()).await {
        store.announce(Position(head?));
    }
    Ok(())
}
