//! A look at the databases behind the runtime's back, through one connection to all of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection};
use waybill_runtime::Position;

use crate::world::Name;

/// The owner of the event store.
const EVENT_STORE: &str = "event_store";

/// Looks at every database.
#[derive(Debug)]
pub(crate) struct Watch {
    connection: SqliteConnection,
    /// The newest checkpoint seen of each service.
    checkpoints: BTreeMap<Name, Checkpoint>,
    /// Up to where the outbox of each service was looked at.
    looked_at: BTreeMap<Name, i64>,
}

/// A consumer's checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) sequence: i64,
    pub(crate) position: i64,
    pub(crate) sources: BTreeMap<String, Position>,
}

impl Watch {
    pub(crate) async fn open(folder: &Path) -> anyhow::Result<Self> {
        let connection = SqliteConnectOptions::new().filename(":memory:").connect().await?;
        let mut watch =
            Self { connection, checkpoints: BTreeMap::new(), looked_at: BTreeMap::new() };
        for name in Name::ALL {
            watch.attach(folder, name.as_str()).await?;
        }
        watch.attach(folder, EVENT_STORE).await?;
        Ok(watch)
    }

    async fn attach(&mut self, folder: &Path, owner: &str) -> anyhow::Result<()> {
        let file = folder.join(format!("{owner}.db"));
        let attach = format!("attach '{}' as \"{owner}\"", file.display());
        sqlx::raw_sql(AssertSqlSafe(attach)).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Lets go of the event store's file, which is about to be replaced.
    pub(crate) async fn let_go_of_store(&mut self) -> anyhow::Result<()> {
        let detach = format!("detach {EVENT_STORE}");
        sqlx::raw_sql(AssertSqlSafe(detach)).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Looks at the event store's new file.
    pub(crate) async fn find_store(&mut self, folder: &Path) -> anyhow::Result<()> {
        self.attach(folder, EVENT_STORE).await
    }

    pub(crate) async fn close(self) -> anyhow::Result<()> {
        Ok(self.connection.close().await?)
    }

    /// Checks that the service's checkpoint has not gone back since it was last looked at; what was
    /// rewound may begin anew, but not forget what it has handled.
    pub(crate) async fn checkpoint(
        &mut self,
        name: Name,
        rewound: bool,
    ) -> anyhow::Result<Checkpoint> {
        let sql = format!(
            "select sequence, position, sources from \"{name}\".checkpoints \
             order by sequence desc limit 1"
        );
        let row: Option<(i64, i64, String)> =
            sqlx::query_as(AssertSqlSafe(sql)).fetch_optional(&mut self.connection).await?;
        let Some((sequence, position, sources)) = row else { return Ok(Checkpoint::default()) };
        let sources = serde_json::from_str(&sources).context("the sources of a checkpoint")?;
        let now = Checkpoint { sequence, position, sources };
        let before = self.checkpoints.entry(name).or_default();
        ensure!(
            now.sequence > before.sequence || now == *before,
            "{name}: checkpoint {before:?} became {now:?}"
        );
        ensure!(
            rewound || now.position >= before.position,
            "{name}: the checkpoint went back from {before:?} to {now:?}"
        );
        for (source, mark) in &before.sources {
            ensure!(
                now.sources.get(source).is_some_and(|now| now >= mark),
                "{name}: the mark of {source} went back from {before:?} to {now:?}"
            );
        }
        before.clone_from(&now);
        Ok(now)
    }

    /// Checks what the service has written since it was last looked at: each effect of an event came
    /// with the mark that the event is handled, and none overtook an event of its lane that is
    /// parked. Positions tell that only in the event store in which events were parked.
    pub(crate) async fn effects(
        &mut self,
        name: Name,
        checkpoint: &Checkpoint,
        store_replaced: bool,
    ) -> anyhow::Result<()> {
        let looked_at = self.looked_at.entry(name).or_default();
        let sql = format!(
            "select o.position, o.type, e.source, e.source_position, \
             exists (select 1 from \"{name}\".dead_letters d where d.lane = e.correlation_id \
             and d.status in ('parked', 'waiting', 'retrying') and d.position < e.position) \
             from \"{name}\".outbox o join event_store.event e on e.id = o.causation_id \
             where o.position > {looked_at} and e.source <> '{name}' order by o.position"
        );
        let effects: Vec<(i64, String, String, i64, bool)> =
            sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut self.connection).await?;
        for (position, kind, source, source_position, overtook) in effects {
            let handled = checkpoint.sources.get(&source).map_or(0, |mark| mark.0);
            ensure!(
                source_position <= handled,
                "{name} wrote {kind} for event {source_position} of {source}, marked up to {handled}"
            );
            ensure!(
                store_replaced || !overtook,
                "{name} wrote {kind} for an event whose lane is held back before it"
            );
            *looked_at = (*looked_at).max(position);
        }
        Ok(())
    }

    /// Rows of texts.
    pub(crate) async fn texts<R>(&mut self, sql: String) -> anyhow::Result<Vec<R>>
    where
        R: for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow> + Send + Unpin,
    {
        Ok(sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut self.connection).await?)
    }

    /// A number.
    pub(crate) async fn number(&mut self, sql: String) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut self.connection).await?)
    }
}
