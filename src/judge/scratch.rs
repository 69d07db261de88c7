//! A Postgres database for one run, beside the one that is named, which is left alone.

use std::str::FromStr as _;

use reqwest::Url;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

/// A database that is made for a run and dropped after it.
#[derive(Debug)]
pub(crate) struct Scratch {
    server: PgConnectOptions,
    pub(crate) name: String,
    /// Its address.
    pub(crate) url: String,
}

/// The server does not give a database to judge with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoScratch {
    /// The address cannot be read.
    #[error("{0:?} is not the address of a Postgres database, such as postgres://user@host/name")]
    BadAddress(String),
    /// It cannot be reached, or does not let this role make a database.
    #[error("no database can be made for the run beside the one of --database-url: {0}")]
    Refused(#[from] sqlx::Error),
}

impl Scratch {
    /// Makes a database of this name, a plain identifier, on the server of this address.
    pub(crate) async fn make(address: &str, name: &str) -> Result<Self, NoScratch> {
        let bad = || NoScratch::BadAddress(address.to_owned());
        let mut url = Url::parse(address).map_err(|_| bad())?;
        let server = PgConnectOptions::from_str(address).map_err(|_| bad())?;
        url.set_path(name);
        let scratch = Self { server, name: name.to_owned(), url: url.into() };
        let mut connection = scratch.connect().await?;
        let create = AssertSqlSafe(format!("create database {name}"));
        sqlx::raw_sql(create).execute(&mut connection).await?;
        connection.close().await?;
        Ok(scratch)
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        self.server.clone().disable_statement_logging().connect().await
    }

    /// Ends every connection to it, as an administrator may.
    pub(crate) async fn cut(&self) -> Result<(), sqlx::Error> {
        let mut connection = self.connect().await?;
        sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1")
            .bind(&self.name)
            .execute(&mut connection)
            .await?;
        connection.close().await
    }

    /// Drops it, whoever is connected.
    pub(crate) async fn remove(&self) -> Result<(), sqlx::Error> {
        let mut connection = self.connect().await?;
        let drop = AssertSqlSafe(format!("drop database if exists {} with (force)", self.name));
        sqlx::raw_sql(drop).execute(&mut connection).await?;
        connection.close().await
    }
}
