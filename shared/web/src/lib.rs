//! The HTTP conventions of Waybill, written once for all services.
//!
//! A handler is an extractor, one call and no error handling of its own: what goes wrong on the way
//! is a [`Problem`], and every way of going wrong has its status here.
//!
//! # Layout
//! - [`Site`]: all routes of a process put together, with what holds for every answer.
//! - [`App`]: the state of a service's routes; `submit`, `show` and `list` do what they are for.
//! - [`Submitted`], [`SubmittedOrEmpty`]: a command's body, and its headers as [`Terms`].
//! - [`Named`], [`Seen`], [`Listing`], [`Filtered`]: what a question names, has seen, asks for.
//! - [`Problem`]: what goes wrong, as RFC 9457 writes it.
//! - [`ops_routes`]: what operators ask of any service; health and metrics come with the site.
//! - [`Peers`]: the other processes of a deployment, where one answers for all; each is a [`Check`].
//! - [`serve`]: the server and its bounds; all bounds are in [`limits`].
//! - [`CreateProblems`] and the like, [`CreateHeaders`] and the like: the `OpenAPI` document's parts.

mod body;
mod command;
mod cursor;
mod document;
mod gauges;
mod health;
mod json;
pub mod limits;
mod list;
mod metrics;
mod ops;
mod path;
mod problem;
mod resource;
mod server;
mod site;
mod state;
mod tags;
mod trace;

pub use command::{IDEMPOTENCY_KEY, Submitted, SubmittedOrEmpty, Terms};
pub use cursor::{ById, ByName, ByPosition, Foreign, PageQuery, Place};
pub use document::{
    AnyProblems, ChangeHeaders, ChangeProblems, ConflictProblem, CreateHeaders, CreateProblems,
    ListProblems, NestedListProblems, ReadHeaders, ReadProblems, StateProblems, one_of,
    optional_body, schema_name,
};
pub use health::{Check, Peers};
pub use list::{Filtered, Filters, Items, Listing, Page, QueryFields, Unfiltered};
pub use metrics::record_metrics;
pub use ops::ops_routes;
pub use path::Named;
pub use problem::{InvalidField, PROBLEM_JSON, Problem};
pub use resource::Seen;
pub use server::{ServerLimits, serve, serve_within};
pub use site::{Site, SiteError};
pub use state::App;
