//! Lists: their filters, and pages by a cursor.

use std::fmt::Display;
use std::str::FromStr;

use axum::Json;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use waybill_runtime::{Cell, Listed, Service};

use crate::cursor::{Cursor, Place};
use crate::limits;
use crate::problem::{InvalidField, Problem};
use crate::state::App;

/// What a list can be filtered by.
pub trait Filters: Sized {
    /// What orders the list.
    type Place: Place;

    /// Takes the filters out of the query.
    fn take(query: &mut QueryFields) -> Self;
}

/// No filter at all, in a list ordered by `P`.
#[derive(Clone, Copy, Debug)]
pub struct Unfiltered<P>(std::marker::PhantomData<P>);

impl<P: Place> Filters for Unfiltered<P> {
    type Place = P;

    fn take(_: &mut QueryFields) -> Self {
        Self(std::marker::PhantomData)
    }
}

/// The query of a list: its filters and the page that is asked for.
#[derive(Clone, Debug)]
pub struct Listing<F> {
    /// What the items must have.
    pub filters: F,
    /// Which of them are asked for.
    pub page: Page,
}

/// Which items of a list are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// How many at most.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Items<T> {
    /// What is on this page.
    pub items: Vec<T>,
    /// The `cursor` of the next page; null on the last one.
    #[schema(required)]
    pub next: Option<String>,
}

impl<T: Serialize> IntoResponse for Items<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// The fields of a query that nobody has taken yet, and what was wrong with those taken.
#[derive(Debug)]
pub struct QueryFields {
    fields: Vec<(String, String)>,
    errors: Vec<InvalidField>,
}

impl QueryFields {
    fn read(parts: &Parts) -> Result<Self, Problem> {
        let whole = |_| Problem::invalid(vec![InvalidField::new("", "the query cannot be read")]);
        let Query(fields) = Query::try_from_uri(&parts.uri).map_err(whole)?;
        Ok(Self { fields, errors: Vec::new() })
    }

    /// Takes a field that may be left out.
    pub fn optional<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let mut values = self.fields.extract_if(.., |(field, _)| field == name).map(|(_, v)| v);
        let value = values.next()?;
        if values.count() > 0 {
            self.refuse(name, "must not be repeated");
            return None;
        }
        value.parse().map_err(|error: T::Err| self.refuse(name, error.to_string())).ok()
    }

    /// Notes that a field is not valid.
    pub fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(InvalidField::new(format!("/{name}"), detail));
    }

    fn page<P: Place>(&mut self) -> Page {
        let limit = self.optional("limit").map(|Limit(limit)| limit);
        let after = self.optional("cursor").map(|cursor: Cursor<P>| cursor.0.to_string());
        Page { limit: limit.unwrap_or(limits::PAGE_DEFAULT), after }
    }

    /// Refuses the query if anything was wrong with it or is left of it.
    fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.fields) {
            self.refuse(&name, "is not known here");
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

struct Limit(usize);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(limit) if (1..=limits::PAGE_MAX).contains(&limit) => Ok(Self(limit)),
            _ => Err(format!("must be a whole number from 1 to {}", limits::PAGE_MAX)),
        }
    }
}

impl<F: Filters, S: Send + Sync> FromRequestParts<S> for Listing<F> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut query = QueryFields::read(parts)?;
        let filters = F::take(&mut query);
        let page = query.page::<F::Place>();
        query.finish()?;
        Ok(Self { filters, page })
    }
}

impl Page {
    /// One row more than are shown tells whether there is a next page.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.limit + 1
    }

    /// The page, of up to [`Page::rows`] rows in the list's order.
    pub fn show<R, T>(
        &self,
        mut rows: Vec<R>,
        place: impl FnOnce(&R) -> String,
        view: impl Fn(&R) -> T,
    ) -> Items<T> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows.last().filter(|_| more).map(place);
        Items {
            items: rows.iter().map(view).collect(),
            next: next.map(|place| Cursor(place).to_string()),
        }
    }
}

impl<S: Service> App<S> {
    /// A page of the rows whose columns have these values.
    pub async fn list<R: Listed, T>(
        &self,
        columns: &[(&'static str, String)],
        page: &Page,
        view: impl Fn(&R) -> T,
    ) -> Result<Items<T>, Problem> {
        let rows = self.handle().list::<R>(columns, page.after.as_deref(), page.rows()).await?;
        Ok(page.show(rows, |row| sorted_by(row, columns), view))
    }
}

/// The value by which a row has its place in the list of these columns.
fn sorted_by<R: Listed>(row: &R, columns: &[(&'static str, String)]) -> String {
    let same = |list: &&waybill_runtime::List| {
        list.filters.len() == columns.len()
            && columns.iter().all(|(column, _)| list.filters.contains(column))
    };
    let place = R::LISTS
        .iter()
        .find(same)
        .and_then(|list| R::COLUMNS.iter().position(|(column, _)| *column == list.sort));
    match place.and_then(|place| row.cells().into_iter().nth(place)) {
        Some(Cell::Text(text)) => text,
        Some(Cell::Bigint(number)) => number.to_string(),
        None => row.key().to_string(),
    }
}

/// The query of what is no list of pages: only its filters.
#[derive(Clone, Copy, Debug)]
pub struct Filtered<F>(pub F);

impl<F: Filters, S: Send + Sync> FromRequestParts<S> for Filtered<F> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut query = QueryFields::read(parts)?;
        let filters = F::take(&mut query);
        query.finish()?;
        Ok(Self(filters))
    }
}
