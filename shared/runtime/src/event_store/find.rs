//! Which events there are of one order, stream, type or service.

use tokio::sync::mpsc;

use crate::database::in_time;
use crate::envelope_columns::envelope_columns;
use crate::error::StoreError;
use crate::event::Position;
use crate::limits;
use crate::sql::{self, Row};

use super::{EventStore, StoredEvent, limit_to_bind, read};

impl EventStore {
    /// At most `limit` events that fit the filter, in its direction.
    pub async fn find(
        &self,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        in_time(limits::READ, async {
            let (sql, key) = filter.statement();
            let mut reader = self.database.reader().await?;
            let rows: Vec<Row> = sql::query(sql)
                .bind(filter.after.0)
                .bind(filter.before.0)
                .bind(limit_to_bind(limit))
                .bind(key)
                .bind(filter.correlation.clone().unwrap_or_default())
                .bind(filter.stream.clone().unwrap_or_default())
                .bind(filter.kind.clone().unwrap_or_default())
                .bind(filter.source.clone().unwrap_or_default())
                .fetch_all(&mut reader)
                .await?;
            reader.give_back();
            rows.into_iter().map(read).collect()
        })
        .await
    }

    /// All events that fit the filter, in its direction and in pages of at most `size`.
    ///
    /// The next pages are read while the caller is at work on one.
    pub fn pages(&self, mut filter: Filter, size: usize) -> Pages {
        let (pages, arriving) = mpsc::channel(limits::PAGES_AHEAD);
        let store = self.clone();
        tokio::spawn(async move {
            loop {
                let page = store.find(&filter, size).await;
                let last = page.as_ref().ok().and_then(|page| page.last());
                let Some(last) = last.map(|event| event.position) else {
                    if page.is_err() {
                        // Nobody is there to hear it only if nobody wants it any more.
                        let _ = pages.send(page).await;
                    }
                    return;
                };
                if filter.newest_first {
                    filter.before = last;
                } else {
                    filter.after = last;
                }
                if pages.send(page).await.is_err() {
                    return;
                }
            }
        });
        Pages(arriving)
    }
}

/// Events page by page, read ahead.
#[derive(Debug)]
pub struct Pages(mpsc::Receiver<Result<Vec<StoredEvent>, StoreError>>);

impl Pages {
    /// The next page; nothing at the end. After an error nothing follows.
    pub async fn next(&mut self) -> Result<Option<Vec<StoredEvent>>, StoreError> {
        self.0.recv().await.transpose()
    }
}

/// Which events to find. Everything given must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What they belong to.
    pub correlation: Option<String>,
    /// Their stream.
    pub stream: Option<String>,
    /// Their name.
    pub kind: Option<String>,
    /// The service that wrote them.
    pub source: Option<String>,
    /// Only positions after this one.
    pub after: Position,
    /// Only positions before this one.
    pub before: Position,
    /// Whether the newest come first.
    pub newest_first: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            correlation: None,
            stream: None,
            kind: None,
            source: None,
            after: Position(0),
            before: Position(i64::MAX),
            newest_first: false,
        }
    }
}

/// A statement that finds events, led by the index of one column; the other filters follow.
macro_rules! find_by {
    ($lead:literal, $order:literal) => {
        concat!(
            stored_event!(),
            " where position > $1 and position < $2 and ",
            $lead,
            " and ($5 = '' or correlation_id = $5) and ($6 = '' or stream = $6) \
             and ($7 = '' or type = $7) and ($8 = '' or source = $8) order by position",
            $order,
            " limit $3"
        )
    };
}

impl Filter {
    /// The statement whose index fits best, and the value that leads it.
    fn statement(&self) -> (&'static str, String) {
        macro_rules! either_way {
            ($lead:literal) => {
                if self.newest_first { find_by!($lead, " desc") } else { find_by!($lead, "") }
            };
        }
        if let Some(correlation) = &self.correlation {
            return (either_way!("correlation_id = $4"), correlation.clone());
        }
        if let Some(stream) = &self.stream {
            return (either_way!("stream = $4"), stream.clone());
        }
        if let Some(kind) = &self.kind {
            return (either_way!("type = $4"), kind.clone());
        }
        (either_way!("$4 = ''"), String::new())
    }
}
