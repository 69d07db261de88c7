//! Who may do what in the database: a role for each service, which reaches its own schema, reads the
//! event store and appends its own events to it, and nothing else.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::support::{Client, Ended, Kind, Options, PATIENCE, Process, Store, make, run, until};

/// Each with the schema of its own; audit has none.
const ROLES: [&str; 5] = ["order", "inventory", "logistics", "user", "audit"];
const SCHEMAS: [&str; 5] = ["order", "inventory", "logistics", "user", "event_store"];

/// What a service's role may do with the tables that every service has; `lock` is to take the turn.
const OWN_RUNTIME_TABLES: [(&str, &str); 9] = [
    ("_sqlx_migrations", "select"),
    ("answers", "select insert delete"),
    ("attempts", "select insert update delete"),
    ("checkpoints", "select insert delete"),
    ("dead_letters", "select insert update"),
    ("outbox", "select insert"),
    ("runs", "select insert delete"),
    ("timers", "select insert update delete"),
    ("turn", "select lock update"),
];
/// And with its own; it reads its views.
const OWN_TABLES: [(&str, &str); 8] = [
    ("orders", "select insert update"),
    ("catalogue", "select insert update"),
    ("products", "select insert update"),
    ("reservations", "select insert update"),
    ("shipments", "select insert update"),
    ("users", "select insert update"),
    ("payments", "select insert update"),
    ("notifications", "select insert update"),
];
/// What every role may do with the event store.
const EVENT_STORE: [(&str, &str); 4] =
    [("_sqlx_migrations", "select"), ("event", "select"), ("log", "select"), ("turn", "select")];
/// And those who append.
const APPENDING: [(&str, &str); 2] = [("event", "select insert"), ("turn", "select lock")];

/// Roles belong to the whole server, so cases that make them take turns.
async fn alone() -> MutexGuard<'static, ()> {
    static TURN: OnceLock<Mutex<()>> = OnceLock::new();
    TURN.get_or_init(Mutex::default).lock().await
}

/// A database with roles, and the folder of their passwords.
struct Walled {
    store: Store,
    secrets: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Walled {
    async fn new() -> Self {
        let alone = alone().await;
        let (store, secrets) = (Store::new(Kind::Postgres).await, TempDir::new().unwrap());
        for role in ROLES {
            std::fs::write(secrets.path().join(role), format!("of {role}: ☃'\"%\n")).unwrap();
        }
        let walled = Self { store, secrets, _alone: alone };
        let migrated = walled.migrate().await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        walled
    }

    fn secret(&self, role: &str) -> String {
        self.secrets.path().join(role).to_str().unwrap().to_owned()
    }

    async fn migrate(&self) -> Ended {
        let roles = ["--roles".to_owned(), self.secret("")];
        run(&[vec!["migrate".to_owned()], self.store.arguments(), roles.to_vec()].concat()).await
    }

    /// The address of the database as a role uses it, without a password.
    fn url(&self, role: &str) -> String {
        self.store.arguments()[1].replacen("//waybill@", &format!("//waybill_{role}@"), 1)
    }

    async fn connect(&self, role: &str) -> AnyConnection {
        AnyConnection::connect(&self.url(role)).await.expect("the role may connect")
    }

    /// A process of one service, with its own role.
    fn arguments(&self, role: &str) -> Vec<String> {
        let options = Options::default().services(&[role]);
        let mut arguments = options.arguments(&self.store);
        let place = arguments.iter().position(|argument| argument == "--database-url").unwrap();
        arguments[place + 1] = self.url(role);
        arguments.extend(["--database-password-file".to_owned(), self.secret(role)]);
        arguments
    }
}

/// Every table and view of a schema, as the owner sees them.
async fn tables(owner: &mut AnyConnection, schema: &str) -> Vec<(String, bool)> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select cast(relname as text), cast(case when relkind = 'v' then 1 else 0 end as bigint) \
         from pg_class join pg_namespace on pg_namespace.oid = relnamespace \
         where nspname = $1 and relkind in ('r', 'p', 'v', 'm', 'f', 'S') order by relname",
    )
    .bind(schema.to_owned())
    .fetch_all(owner)
    .await
    .unwrap();
    rows.into_iter().map(|(name, view)| (name, view == 1)).collect()
}

/// The verbs that a role may use on a table.
fn allowed(role: &str, schema: &str, table: &str, view: bool) -> &'static str {
    let named = |list: &'static [(&str, &str)]| {
        list.iter().find(|(name, _)| *name == table).map(|(_, verbs)| *verbs)
    };
    if schema == "event_store" {
        let appends = if role == "audit" { None } else { named(&APPENDING) };
        return appends.or_else(|| named(&EVENT_STORE)).unwrap_or(if view { "select" } else { "" });
    }
    if schema != role {
        return "";
    }
    match named(&OWN_RUNTIME_TABLES).or_else(|| named(&OWN_TABLES)) {
        Some(verbs) => verbs,
        None if view => "select",
        None => panic!("{schema}.{table} is a new table: say here who may do what with it"),
    }
}

/// Whether a role may run a statement, which is taken back.
async fn may(connection: &mut AnyConnection, sql: String) -> bool {
    let mut trying = connection.begin().await.unwrap();
    let done = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *trying).await;
    trying.rollback().await.unwrap();
    match done {
        Ok(_) => true,
        Err(sqlx::Error::Database(refused)) => {
            let code = refused.code().unwrap_or_default();
            // Refused by grants, or by a trigger.
            assert!(matches!(&*code, "42501" | "P0001"), "{sql}: {refused}");
            false
        }
        Err(other) => panic!("{sql}: {other}"),
    }
}

#[tokio::test]
async fn a_role_may_do_what_its_service_does_and_nothing_else() {
    let walled = Walled::new().await;
    let mut owner = AnyConnection::connect(&walled.store.arguments()[1]).await.unwrap();
    let mut wrong = BTreeMap::new();
    for role in ROLES {
        let mut connection = walled.connect(role).await;
        for schema in SCHEMAS {
            for (table, view) in tables(&mut owner, schema).await {
                let allowed: Vec<&str> =
                    allowed(role, schema, &table, view).split_whitespace().collect();
                for (verb, sql) in statements(&mut owner, schema, &table, view).await {
                    let expected = allowed.contains(&verb);
                    if may(&mut connection, sql.clone()).await != expected {
                        wrong.insert(format!("waybill_{role}: {sql}"), expected);
                    }
                }
            }
            let own = schema == role;
            let reads = own || schema == "event_store";
            for (sql, expected) in [
                (format!("select * from \"{schema}\".jsonb_each(text '[]')"), reads),
                (format!("create table \"{schema}\".mine (id bigint)"), false),
                (
                    format!(
                        "create function \"{schema}\".mine() returns int language sql as 'select 1'"
                    ),
                    false,
                ),
                (format!("drop schema \"{schema}\" cascade"), false),
                (format!("alter table \"{schema}\".turn disable trigger user"), false),
            ] {
                if may(&mut connection, sql.clone()).await != expected {
                    wrong.insert(format!("waybill_{role}: {sql}"), expected);
                }
            }
        }
        for sql in [
            "create schema mine",
            "create table public.mine (id bigint)",
            "create temporary table mine (id bigint)",
            "create role waybill_mine",
            "alter role waybill_order superuser",
            "set role waybill",
            "set session_replication_role = replica",
            "select pg_read_file('/etc/passwd')",
        ] {
            if may(&mut connection, sql.to_owned()).await {
                wrong.insert(format!("waybill_{role}: {sql}"), false);
            }
        }
    }
    assert!(wrong.is_empty(), "statement and whether it should be allowed: {wrong:#?}");
}

/// A statement for each verb, none of which touches a row.
async fn statements(
    owner: &mut AnyConnection,
    schema: &str,
    table: &str,
    view: bool,
) -> Vec<(&'static str, String)> {
    let column: String = sqlx::query_scalar(
        "select cast(column_name as text) from information_schema.columns \
         where table_schema = $1 and table_name = $2 order by ordinal_position limit 1",
    )
    .bind(schema.to_owned())
    .bind(table.to_owned())
    .fetch_one(owner)
    .await
    .unwrap();
    let name = format!("\"{schema}\".\"{table}\"");
    let mut statements = vec![("select", format!("select * from {name} where false"))];
    if !view {
        statements.extend([
            ("insert", format!("insert into {name} select * from {name} where false")),
            ("update", format!("update {name} set {column} = {column}")),
            ("delete", format!("delete from {name}")),
            ("truncate", format!("truncate {name}")),
        ]);
    }
    if table == "turn" {
        statements.push(("lock", format!("select owner from {name} for update")));
    }
    statements
}

#[tokio::test]
async fn a_service_with_its_own_role_appends_its_own_events_and_changes_none() {
    let walled = Walled::new().await;
    let mut order = walled.connect("order").await;
    let append = |source: &str| {
        let row = "1, 1, 'SOURCE', 1, 'id', 't', 1, 's', 1, 1, 'c', 'c', 'a', '', '{}', ''";
        format!("insert into event_store.event values ({})", row.replace("SOURCE", source))
    };
    assert!(may(&mut order, append("order")).await);
    for other in ["inventory", "user", "waybill_order", ""] {
        assert!(!may(&mut order, append(other)).await, "an event of {other:?}");
    }
    let mut owner = AnyConnection::connect(&walled.store.arguments()[1]).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(append("order"))).execute(&mut owner).await.unwrap();
    for sql in [
        "update event_store.event set data = '{\"total\":0}'",
        "delete from event_store.event",
        "truncate event_store.event",
        "update event_store.log set id = 'another'",
        "truncate event_store.log",
        "update event_store.turn set owner = 'another'",
        "truncate event_store.turn",
    ] {
        assert!(!may(&mut order, sql.to_owned()).await, "with its grants: {sql}");
        assert!(!may(&mut owner, sql.to_owned()).await, "the owner, with its triggers: {sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_with_roles_of_their_own_complete_an_order() {
    let walled = Walled::new().await;
    let (mut processes, mut at) = (Vec::new(), BTreeMap::new());
    for role in ROLES {
        let (process, url) = Process::serve(&walled.arguments(role)).await;
        let client = Client::new(url);
        client.ready().await;
        processes.push(process);
        at.insert(role, client);
    }
    at["inventory"].post("/v1/products", &make::product("TEA", 500, 10)).await.expect(201);
    let customer = at["user"].user(2_000).await;
    let order = make::order(&customer, &[("TEA", 3)]);
    let placed = until("the product can be ordered", PATIENCE, async || {
        let reply = at["order"].post("/v1/orders", &order).await;
        (reply.status == 201).then_some(reply)
    });
    let id = placed.await.body["id"].as_str().unwrap().to_owned();
    let order = at["order"].until_ended(&id).await;
    assert_eq!(order["status"], "completed", "{order:#}");
    let history = at["audit"].get(&format!("/v1/audit/orders/{id}")).await.expect(200);
    assert!(history.body["timeline"].as_array().unwrap().len() > 10, "{}", history.text);
    for mut process in processes {
        process.terminate();
        assert_eq!(process.ended().await.code(), Some(0), "it stops cleanly");
    }
    let verified = run(&[vec!["verify".to_owned()], walled.store.arguments()].concat()).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_may_not_migrate_says_who_should() {
    let walled = Walled::new().await;
    walled.store.execute("event_store", "delete from _sqlx_migrations where version = 3003").await;
    let refused = run(&walled.arguments("order")).await;
    let said = "the tables of event_store are not up to date; run `waybill migrate` first";
    assert_eq!((refused.code, refused.stderr.contains(said)), (Some(2), true), "{refused:?}");
}

#[tokio::test]
async fn migrating_again_gives_rights_anew_and_takes_others_away() {
    let walled = Walled::new().await;
    walled.store.execute("user", "grant select, update on users to waybill_order").await;
    walled.store.execute("order", "grant delete on outbox to waybill_order").await;
    walled.store.execute("order", "revoke insert on outbox from waybill_order").await;
    let told = walled.migrate().await;
    assert_eq!(told.code, Some(0), "{told:?}");
    let roles = ROLES.map(|role| format!("waybill_{role}")).join(", ");
    assert!(told.stdout.contains(&roles), "{told:?}");
    let mut order = walled.connect("order").await;
    assert!(!may(&mut order, "delete from \"order\".outbox".to_owned()).await);
    let row = "1, 'id', 't', 1, 's', 1, 1, 'c', 'c', 'a', '', '{}'";
    assert!(may(&mut order, format!("insert into \"order\".outbox values ({row})")).await);
    assert!(!may(&mut order, "select * from \"user\".users".to_owned()).await);
}

#[tokio::test]
async fn a_password_file_that_cannot_be_used_is_named() {
    let walled = Walled::new().await;
    let (order, missing) = (walled.secret("order"), walled.secret("audit"));
    std::fs::remove_file(&missing).unwrap();
    let refused = walled.migrate().await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains(&missing), "{refused:?}");
    for bad in ["", "\n", "two\nlines\n"] {
        std::fs::write(&order, bad).unwrap();
        let refused = run(&walled.arguments("order")).await;
        let named = refused.stderr.contains(&format!("the password file {order} cannot be used"));
        assert_eq!((refused.code, named), (Some(2), true), "{bad:?}: {refused:?}");
    }
}
