//! The HTTP conventions of Waybill, written once for all services.

mod body;
mod command;
mod document;
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

pub use command::{IDEMPOTENCY_KEY, Submitted, SubmittedOrEmpty, Terms};
pub use document::{
    AnyProblems, ChangeHeaders, ChangeProblems, ConflictProblem, CreateHeaders, CreateProblems,
    ListProblems, NestedListProblems, PageQuery, ReadHeaders, ReadProblems, StateProblems, one_of,
    optional_body, schema_name,
};
pub use list::{Filtered, Filters, Items, Listing, Page, QueryFields, Unfiltered};
pub use metrics::record_metrics;
pub use ops::ops_routes;
pub use path::Named;
pub use problem::{InvalidField, PROBLEM_JSON, Problem};
pub use resource::Seen;
pub use server::{ServerLimits, serve, serve_within};
pub use site::{Site, SiteError};
pub use state::App;
