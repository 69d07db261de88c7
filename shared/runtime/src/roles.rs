//! Walls inside a Postgres database: a role for each service, which reaches its own schema, reads
//! the event store and appends its own events to it, and nothing else.
//!
//! The rights are given anew by every `waybill migrate --roles`, in one transaction for each schema,
//! so that tables of later versions have theirs too. Roles belong to a whole server, rights to one
//! database.

use crate::error::StoreError;
use crate::rows::TableNames;
use crate::service::Service;
use crate::sql::{self, Connection};
use crate::tables::Tables;

/// What the role may do with the tables that every service has, beside reading them. The outbox is
/// append-only; to lock the turn takes the right to change it.
const ON_RUNTIME_TABLES: &[(&str, &str)] = &[
    ("insert", "outbox, checkpoints, answers, timers, dead_letters, attempts, runs"),
    ("update", "timers, dead_letters, attempts"),
    ("delete", "checkpoints, answers, timers, attempts, runs"),
    ("update (owner)", "turn"),
];

/// What a service's role may do with the event store, beside reading it. Which events it may append
/// says the policy of the table.
const ON_EVENT_STORE: &[(&str, &str)] = &[("insert", "event"), ("update (owner)", "turn")];

/// A Postgres role for one service.
#[derive(Clone)]
pub struct Role {
    name: String,
    password: String,
}

impl Role {
    /// The role of a service, `waybill_` and the service's name, with this password.
    #[must_use]
    pub fn of(service: &str, password: String) -> Self {
        Self { name: format!("waybill_{service}"), password }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Role").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Lets the role use its service's schema.
pub(crate) async fn admit_to_service<S: Service>(
    connection: &mut Connection,
    role: &Role,
) -> Result<(), StoreError> {
    let mut names = TableNames::default();
    let Ok(()) = S::Tables::default().visit(&mut names).await;
    let own = names.0.join(", ");
    let mut rights = vec![("insert, update", own.as_str())];
    rights.extend_from_slice(ON_RUNTIME_TABLES);
    admit(connection, S::NAME, role, &rights).await
}

/// Lets the role read the event store, and append to it if its service writes events.
pub(crate) async fn admit_to_event_store(
    connection: &mut Connection,
    schema: &str,
    role: &Role,
    appends: bool,
) -> Result<(), StoreError> {
    admit(connection, schema, role, if appends { ON_EVENT_STORE } else { &[] }).await
}

/// Makes the role if there is none, and gives it these rights in the schema, and no others.
async fn admit(
    connection: &mut Connection,
    schema: &str,
    role: &Role,
    rights: &[(&str, &str)],
) -> Result<(), StoreError> {
    make(connection, role).await?;
    let name = &role.name;
    let mut statements = vec![
        format!("grant usage on schema \"{schema}\" to {name}"),
        format!("revoke all on all tables in schema \"{schema}\" from {name}"),
        format!("grant select on all tables in schema \"{schema}\" to {name}"),
    ];
    let granting = |(verbs, tables): &(&str, &str)| format!("grant {verbs} on {tables} to {name}");
    statements.extend(rights.iter().map(granting));
    // Put together from names that are constants of the build.
    sql::plain(statements.join("; ")).execute(connection).await?;
    Ok(())
}

/// Makes the role, or gives it the password that it has from now on.
async fn make(connection: &mut Connection, role: &Role) -> Result<(), StoreError> {
    // The server quotes what it is given: these statements take no parameters.
    let statements: String = sql::query(
        "select format( \
             case when exists (select 1 from pg_roles where rolname = $1) \
             then 'alter role %1$I with login password %2$L; ' \
             else 'create role %1$I with login password %2$L; ' end \
             || 'revoke all on database %3$I from public; grant connect on database %3$I to %1$I', $1, $2, current_database())",
    )
    .bind(role.name.clone())
    .bind(role.password.clone())
    .fetch_one(connection)
    .await?;
    sql::plain(statements).execute(connection).await?;
    Ok(())
}
