//! The floor: rows that a pipeline left, written again to empty tables in statements of 500 rows, by
//! one connection for each owner, with no logic and no reading. The rows travel to Postgres as the
//! runtime's do, as an array for each column, and to SQLite each value as a parameter.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{
    AnyConnection, AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _,
    SqliteConnection,
};
use tokio::task::JoinSet;

use crate::bench::Bench;
use crate::place::{Commits, Kind, Place};
use crate::stopwatch::Stopwatch;

const OWNERS: [&str; 5] = ["event_store", "order", "inventory", "user", "logistics"];
/// Rows of one statement.
const ROWS: usize = 500;
/// Tables of one row, or none, that migrations and starts fill.
const SKIPPED: [&str; 4] = ["turn", "log", "runs", "_sqlx_migrations"];

/// What an owner writes: statements, each with its rows.
type Writes = Vec<(String, Rows)>;

/// Rows of one statement.
enum Rows {
    Values(Vec<Vec<Value>>),
    Arrays(Vec<Array>),
}

/// The values of one column.
enum Array {
    Texts(Vec<String>),
    Bigints(Vec<i64>),
}

/// The connection of an owner.
enum Writer {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// Writes all rows of a place to an empty one; how long that took.
pub(crate) async fn write_again(
    bench: &Bench,
    kind: Kind,
    from: &Place,
) -> anyhow::Result<Duration> {
    let to = Place::fresh(bench, kind).await?;
    bench.waybill.run(&["migrate"], &to)?;
    let mut writers = Vec::new();
    for owner in OWNERS {
        let statements = read(from, owner, kind).await?;
        let writer = match to.database() {
            None => {
                let file = to.file(owner).context("it has no file")?;
                // As the runtime does.
                let options = SqliteConnectOptions::new()
                    .filename(file)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .pragma("wal_autocheckpoint", "4000");
                Writer::Sqlite(options.connect().await?)
            }
            Some(database) => {
                let options: PgConnectOptions = database.url.parse()?;
                Writer::Postgres(options.options([("search_path", owner)]).connect().await?)
            }
        };
        writers.push((writer, statements));
    }
    let watch = Stopwatch::start();
    let mut running = JoinSet::new();
    for (connection, writes) in writers {
        running.spawn(write(connection, writes));
    }
    let ended: anyhow::Result<Vec<()>> = running.join_all().await.into_iter().collect();
    let took = watch.elapsed();
    ended?;
    to.remove().await?;
    Ok(took)
}

async fn write(mut owner: Writer, writes: Writes) -> anyhow::Result<()> {
    for (insert, rows) in writes {
        // Put together from the tables' own names.
        let insert = AssertSqlSafe(insert);
        match (&mut owner, rows) {
            (Writer::Sqlite(connection), Rows::Values(rows)) => {
                let values = rows.into_iter().flatten();
                let insert = values.fold(sqlx::query(insert), |insert, value| match value {
                    Value::String(text) => insert.bind(text),
                    number => insert.bind(number.as_i64()),
                });
                insert.execute(connection).await?;
            }
            (Writer::Postgres(connection), Rows::Arrays(arrays)) => {
                let insert =
                    arrays.into_iter().fold(sqlx::query(insert), |insert, array| match array {
                        Array::Texts(texts) => insert.bind(texts),
                        Array::Bigints(numbers) => insert.bind(numbers),
                    });
                insert.execute(connection).await?;
            }
            _ => anyhow::bail!("rows of the other database"),
        }
    }
    match owner {
        Writer::Sqlite(connection) => connection.close().await?,
        Writer::Postgres(connection) => connection.close().await?,
    }
    Ok(())
}

async fn read(from: &Place, owner: &str, kind: Kind) -> anyhow::Result<Writes> {
    let mut connection = from.connect(owner, Commits::Durable).await?;
    let mut writes = Vec::new();
    for (table, columns) in tables(&mut connection, owner, kind).await? {
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        // Names of our own tables.
        let select = AssertSqlSafe(format!("select {} from {table} order by 1", names.join(", ")));
        let rows = sqlx::query(select).fetch_all(&mut connection).await?;
        let rows: Vec<Vec<Value>> =
            rows.iter().map(|row| cells(row, &columns)).collect::<Result<_, _>>()?;
        for rows in rows.chunks(ROWS) {
            writes.push(match kind {
                Kind::Sqlite => {
                    (insert_values(&table, &names, rows.len()), Rows::Values(rows.to_vec()))
                }
                Kind::Postgres => {
                    (insert_arrays(&table, &columns), Rows::Arrays(arrays(rows, &columns)?))
                }
            });
        }
    }
    connection.close().await?;
    Ok(writes)
}

/// The columns of an owner's tables, each with whether it holds text.
async fn tables(
    connection: &mut AnyConnection,
    owner: &str,
    kind: Kind,
) -> anyhow::Result<BTreeMap<String, Vec<(String, bool)>>> {
    let sql = match kind {
        Kind::Sqlite => {
            "select part.name, col.name, lower(col.type) from sqlite_master as part, \
             pragma_table_info(part.name) as col where part.type = 'table' and $1 <> '' \
             order by part.name, col.cid"
        }
        Kind::Postgres => {
            "select cast(table_name as text), cast(column_name as text), cast(data_type as text) \
             from information_schema.columns join information_schema.tables \
             using (table_schema, table_name) where table_schema = $1 \
             and table_type = 'BASE TABLE' order by table_name, ordinal_position"
        }
    };
    let rows: Vec<(String, String, String)> =
        sqlx::query_as(sql).bind(owner.to_owned()).fetch_all(connection).await?;
    let mut tables: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
    for (table, column, kind) in rows {
        if !SKIPPED.contains(&table.as_str()) {
            tables.entry(table).or_default().push((column, kind == "text"));
        }
    }
    Ok(tables)
}

fn arrays(rows: &[Vec<Value>], columns: &[(String, bool)]) -> anyhow::Result<Vec<Array>> {
    let array = |(index, (name, is_text)): (usize, &(String, bool))| {
        let values = rows.iter().map(|row| row.get(index));
        let array = if *is_text {
            values
                .map(|value| Some(value?.as_str()?.to_owned()))
                .collect::<Option<_>>()
                .map(Array::Texts)
        } else {
            values.map(|value| value?.as_i64()).collect::<Option<_>>().map(Array::Bigints)
        };
        array.with_context(|| name.clone())
    };
    columns.iter().enumerate().map(array).collect()
}

fn insert_arrays(table: &str, columns: &[(String, bool)]) -> String {
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    let array = |(number, (_, is_text)): (usize, &(String, bool))| {
        format!("${number}::{}[]", if *is_text { "text" } else { "bigint" })
    };
    let arrays: Vec<String> = (1..).zip(columns).map(array).collect();
    let (names, arrays) = (names.join(", "), arrays.join(", "));
    format!("insert into {table} ({names}) select * from unnest({arrays})")
}

fn insert_values(table: &str, names: &[&str], rows: usize) -> String {
    let row = format!("({})", vec!["?"; names.len()].join(", "));
    format!("insert into {table} ({}) values {}", names.join(", "), vec![row; rows].join(", "))
}

fn cells(row: &AnyRow, columns: &[(String, bool)]) -> anyhow::Result<Vec<Value>> {
    let cell = |(index, (name, is_text)): (usize, &(String, bool))| {
        let value = if *is_text {
            row.try_get::<String, _>(index).map(Value::from)
        } else {
            row.try_get::<i64, _>(index).map(Value::from)
        };
        value.with_context(|| name.clone())
    };
    columns.iter().enumerate().map(cell).collect()
}
