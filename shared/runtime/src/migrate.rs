//! Migrations.

/// One step in the life of an owner's tables; never edited once released.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its place in the order, unique within its owner.
    pub version: i64,
    /// What it does.
    pub name: &'static str,
    /// The statements, the same for both databases.
    pub sql: &'static str,
}
