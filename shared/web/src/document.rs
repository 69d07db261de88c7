//! The `OpenAPI` document: what all services share of it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, ObjectBuilder, OneOfBuilder, OpenApi, Ref, RefOr, Required,
    Response, ResponseBuilder, Schema, Type,
};
use utoipa::{IntoParams, IntoResponses, OpenApi as _};
use utoipa_axum::router::UtoipaMethodRouter;

use crate::health::Scope;
use crate::problem::{InvalidField, PROBLEM_JSON, Problem};

type Responses = BTreeMap<String, RefOr<Response>>;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Waybill", description = "An order pipeline that you can audit."),
    components(schemas(Problem, InvalidField, Scope))
)]
struct Base;

/// The document without any route: what the routes refer to.
pub(crate) fn base() -> OpenApi {
    let mut document = Base::openapi();
    let components = document.components.get_or_insert_default();
    for (status, meaning) in PROBLEMS {
        components.responses.insert(name(*status), RefOr::T(problem_response(*status, meaning)));
    }
    document
}

const PROBLEMS: &[(StatusCode, &str)] = &[
    (StatusCode::BAD_REQUEST, "What was sent cannot be read."),
    (StatusCode::NOT_FOUND, "There is no such thing."),
    (StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time."),
    (StatusCode::CONFLICT, "Its state does not allow it."),
    (StatusCode::PRECONDITION_FAILED, "It has changed since the client saw it."),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is not plain JSON."),
    (StatusCode::UNPROCESSABLE_ENTITY, "It can be read and is not valid."),
    (StatusCode::INTERNAL_SERVER_ERROR, "A defect of the service."),
    (StatusCode::SERVICE_UNAVAILABLE, "The service is busy or its database does not answer."),
];

fn problem_response(status: StatusCode, meaning: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new().description(meaning).content(PROBLEM_JSON, content);
    if status != StatusCode::SERVICE_UNAVAILABLE {
        return response.build();
    }
    let seconds = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer)).build();
    let retry = HeaderBuilder::new()
        .schema(Some(seconds))
        .description(Some("Seconds after which to try again."))
        .build();
    response.header("Retry-After", retry).build()
}

fn name(status: StatusCode) -> String {
    format!("Problem{}", status.as_u16())
}

fn problems(statuses: &[u16]) -> Responses {
    let refer = |status: &u16| {
        (status.to_string(), RefOr::Ref(Ref::from_response_name(format!("Problem{status}"))))
    };
    statuses.iter().map(refer).collect()
}

/// What may go wrong with a command that makes something new.
#[derive(Clone, Copy, Debug)]
pub struct CreateProblems;

impl IntoResponses for CreateProblems {
    fn responses() -> Responses {
        problems(&[400, 408, 412, 413, 415, 422, 500, 503])
    }
}

/// What may go wrong with a command about something that is there.
#[derive(Clone, Copy, Debug)]
pub struct ChangeProblems;

impl IntoResponses for ChangeProblems {
    fn responses() -> Responses {
        problems(&[400, 404, 408, 409, 412, 413, 415, 422, 500, 503])
    }
}

/// That the state of something does not allow a command; for those that make something new.
#[derive(Clone, Copy, Debug)]
pub struct ConflictProblem;

impl IntoResponses for ConflictProblem {
    fn responses() -> Responses {
        problems(&[409])
    }
}

/// What may go wrong with a command that has no body.
#[derive(Clone, Copy, Debug)]
pub struct StateProblems;

impl IntoResponses for StateProblems {
    fn responses() -> Responses {
        problems(&[404, 409, 500, 503])
    }
}

/// What may go wrong with the reading of one resource.
#[derive(Clone, Copy, Debug)]
pub struct ReadProblems;

impl IntoResponses for ReadProblems {
    fn responses() -> Responses {
        problems(&[400, 404, 500, 503])
    }
}

/// What may go wrong with any question.
#[derive(Clone, Copy, Debug)]
pub struct AnyProblems;

impl IntoResponses for AnyProblems {
    fn responses() -> Responses {
        problems(&[500, 503])
    }
}

/// That the query is not valid; for what is no list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueryProblem;

impl IntoResponses for QueryProblem {
    fn responses() -> Responses {
        problems(&[422])
    }
}

/// What may go wrong with the reading of a list.
#[derive(Clone, Copy, Debug)]
pub struct ListProblems;

impl IntoResponses for ListProblems {
    fn responses() -> Responses {
        problems(&[422, 500, 503])
    }
}

/// What may go wrong with the reading of a list that belongs to something.
#[derive(Clone, Copy, Debug)]
pub struct NestedListProblems;

impl IntoResponses for NestedListProblems {
    fn responses() -> Responses {
        problems(&[404, 422, 500, 503])
    }
}

/// The headers of a command that makes something new.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct CreateHeaders {
    /// Names the request: repeated with the same key, it gives the same answer and does nothing.
    #[param(rename = "Idempotency-Key", required = false, value_type = String,
        min_length = 1, max_length = 255, pattern = "^[\\x21-\\x7e]+$")]
    pub idempotency_key: String,
}

/// The headers of a command about something that is there.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct ChangeHeaders {
    /// Names the request: repeated with the same key, it gives the same answer and does nothing.
    #[param(rename = "Idempotency-Key", required = false, value_type = String,
        min_length = 1, max_length = 255, pattern = "^[\\x21-\\x7e]+$")]
    pub idempotency_key: String,
    /// The versions that the client has seen, as their `ETag`: 412 if it has another one by now.
    #[param(rename = "If-Match", required = false, schema_with = any_or_tags)]
    pub if_match: String,
}

/// The headers of a question for one resource.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct ReadHeaders {
    /// The versions that the client has seen, as their `ETag`: 304 if it still has one of them.
    #[param(rename = "If-None-Match", required = false, schema_with = tags)]
    pub if_none_match: String,
    /// `wait=N` with `If-None-Match` waits up to N seconds, 60 at most, for a newer version.
    #[param(rename = "Prefer", required = false, value_type = String, example = "wait=5")]
    pub prefer: String,
}

/// `*`, or a list of entity tags.
fn any_or_tags() -> Schema {
    this_or_tags("*")
}

/// A list of entity tags, of which the empty one stands for nothing that is known. `*` is no question
/// that makes sense, though it is answered.
fn tags() -> Schema {
    this_or_tags("\"\"")
}

/// One pattern for all would say the same, but tools that make up values do not read it.
fn this_or_tags(this: &str) -> Schema {
    let text = || ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
    let this = text().enum_values(Some([this]));
    let tags = text().pattern(Some(r#"^(W/)?"[!#-~]+"( *, *(W/)?"[!#-~]*")*$"#));
    Schema::OneOf(OneOfBuilder::new().item(this).item(tags).build())
}

/// Says of a route that its body may be left out.
pub fn optional_body<S>(
    (schemas, mut paths, router): UtoipaMethodRouter<S>,
) -> UtoipaMethodRouter<S> {
    for item in paths.paths.values_mut() {
        let body = item.post.as_mut().and_then(|operation| operation.request_body.as_mut());
        if let Some(RefOr::T(body)) = body {
            body.required = Some(Required::False);
        }
    }
    (schemas, paths, router)
}

/// The schema of a text that is one of these; for [`text_schema!`](crate::text_schema).
#[must_use]
pub fn one_of(texts: Vec<&'static str>) -> RefOr<Schema> {
    RefOr::T(Schema::Object(
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .enum_values(Some(texts))
            .build(),
    ))
}

/// The name of a schema: more than one service has a `Status`. `waybill-order` makes it `OrderStatus`.
#[must_use]
pub fn schema_name(package: &str, name: &str) -> Cow<'static, str> {
    let service = package.trim_start_matches("waybill-");
    let (first, rest) = service.split_at(service.len().min(1));
    format!("{}{rest}{name}", first.to_uppercase()).into()
}

/// Gives enums declared with `text_enum!` their schema, named after the package or as told.
#[macro_export]
macro_rules! text_schema {
    ($($Enum:ident $(as $name:literal)?),+ $(,)?) => {$(
        impl ::utoipa::PartialSchema for $Enum {
            fn schema() -> ::utoipa::openapi::RefOr<::utoipa::openapi::schema::Schema> {
                $crate::one_of(<$Enum>::ALL.iter().map(|value| value.as_str()).collect())
            }
        }
        impl ::utoipa::ToSchema for $Enum {
            fn name() -> ::std::borrow::Cow<'static, str> {
                $crate::text_schema!(@name $Enum $($name)?)
            }
        }
    )+};
    (@name $Enum:ident) => { $crate::schema_name(env!("CARGO_PKG_NAME"), stringify!($Enum)) };
    (@name $Enum:ident $name:literal) => { $name.into() };
}
