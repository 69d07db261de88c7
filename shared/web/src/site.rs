//! All routes of a process put together, with what holds for every one of them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};
use waybill_runtime::trace::Tracer;
use waybill_runtime::{Clock, EventStore, Handle, Health, Service};

use crate::document;
use crate::gauges::Gauges;
use crate::health::{self, Peers, Readiness};
use crate::limits;
use crate::metrics::{self, Measured};
use crate::ops::ops_routes;
use crate::problem::{PROBLEM_JSON, Problem};
use crate::state::App;
use crate::trace::Traced;

const DOCUMENT_PATH: &str = "/openapi.json";
const DOCS_PATH: &str = "/docs";

/// The routes of a process, while they are being put together.
pub struct Site {
    routes: OpenApiRouter<Arc<Process>>,
    clock: Clock,
    readiness: Readiness,
    ambiguous: Option<String>,
    gauges: Gauges,
    tracer: Tracer,
}

/// What the routes of the process itself answer from.
pub(crate) struct Process {
    pub(crate) readiness: Readiness,
    pub(crate) gauges: Gauges,
    /// The document, as it is sent.
    document: Bytes,
}

/// Why routes do not make a site.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// Two services mean different things by one name.
    #[error("the API has two different schemas named {0}")]
    Ambiguous(String),
    /// The document has no JSON form.
    #[error("the API's document has no JSON form: {0}")]
    Document(#[from] serde_json::Error),
}

impl Site {
    /// A site with no service yet: health, metrics and the document.
    #[must_use]
    pub fn new(clock: Clock, health: Health, stopping: CancellationToken) -> Self {
        let gauges = Gauges::new(health.clone());
        let readiness = Readiness { health, stopping, peers: None };
        let routes = OpenApiRouter::with_openapi(document::base())
            .routes(routes!(health::livez))
            .routes(routes!(health::readyz))
            .routes(routes!(metrics::show_metrics))
            .routes(routes!(openapi_document));
        Self { routes, clock, readiness, ambiguous: None, gauges, tracer: Tracer::default() }
    }

    /// Tells of every request.
    #[must_use]
    pub fn traced_by(mut self, tracer: Tracer) -> Self {
        self.tracer = tracer;
        self
    }

    /// Shows the gauges of the event store too.
    #[must_use]
    pub fn event_store(mut self, event_store: EventStore) -> Self {
        self.gauges.read_event_store(event_store);
        self
    }

    /// Adds a service's routes and those of its operators.
    #[must_use]
    pub fn service<S: Service>(mut self, handle: Handle<S>, routes: OpenApiRouter<App<S>>) -> Self {
        self.gauges.read_service(handle.clone());
        let app = App::new(handle, self.readiness.stopping.clone());
        self.merge(routes.merge(ops_routes::<S>()).with_state(app))
    }

    /// Adds routes that have their state already.
    #[must_use]
    pub fn merge(mut self, routes: OpenApiRouter) -> Self {
        self.note_ambiguous(routes.get_openapi());
        self.routes = self.routes.merge(routes.with_state(()));
        self
    }

    /// Answers for these too when asked whether all is ready.
    #[must_use]
    pub fn answering_for(mut self, peers: Arc<dyn Peers>) -> Self {
        self.readiness.peers = Some(peers);
        self
    }

    /// Adds a service that others serve, and what its operators ask, to the document only.
    #[must_use]
    pub fn describe_service<S: Service>(self, routes: OpenApiRouter<App<S>>) -> Self {
        self.describe(routes.merge(ops_routes::<S>()).into_openapi())
    }

    /// Adds routes that others serve to the document only.
    #[must_use]
    pub fn describe(mut self, document: OpenApi) -> Self {
        self.note_ambiguous(&document);
        self.routes.get_openapi_mut().merge(document);
        self
    }

    fn note_ambiguous(&mut self, document: &OpenApi) {
        let ambiguous = ambiguous_schema(self.document(), document);
        self.ambiguous = self.ambiguous.take().or(ambiguous);
    }

    /// The `OpenAPI` document of all routes so far.
    #[must_use]
    pub fn document(&self) -> &OpenApi {
        self.routes.get_openapi()
    }

    /// All routes, ready to be served.
    pub fn into_router(self) -> Result<Router, SiteError> {
        if let Some(name) = self.ambiguous {
            return Err(SiteError::Ambiguous(name));
        }
        let (router, document) = self.routes.split_for_parts();
        let document = Bytes::from(serde_json::to_vec(&document)?);
        let process = Process { readiness: self.readiness, gauges: self.gauges, document };
        let swagger = SwaggerUi::new(DOCS_PATH).config(Config::from(DOCUMENT_PATH));
        let around = Arc::new(Around { clock: self.clock, tracer: self.tracer });
        let router = router.merge(swagger).with_state(Arc::new(process));
        Ok(router.layer(from_fn_with_state(around, answer)))
    }
}

/// A name that both documents have, with different schemas; merging would drop one of them.
fn ambiguous_schema(one: &OpenApi, other: &OpenApi) -> Option<String> {
    let (one, other) = (one.components.as_ref()?, other.components.as_ref()?);
    let mut both = other.schemas.iter();
    let differs = |name: &str, schema| one.schemas.get(name).is_some_and(|known| known != schema);
    both.find(|(name, schema)| differs(name, *schema)).map(|(name, _)| name.clone())
}

/// Show the `OpenAPI` document of this process, and of the services that it answers for.
#[utoipa::path(
    get, path = "/openapi.json", tag = "process",
    responses((status = 200, description = "The document.", body = Object, content_type = "application/json")),
)]
async fn openapi_document(State(process): State<Arc<Process>>) -> Response {
    ([(CONTENT_TYPE, "application/json")], process.document.clone()).into_response()
}

/// What is done around the routes needs these.
struct Around {
    clock: Clock,
    tracer: Tracer,
}

/// What holds for every request and every answer. For each layer the framework copies, per request, everything
/// below it; so there is one.
async fn answer(State(around): State<Arc<Around>>, mut request: Request, next: Next) -> Response {
    let docs = request.uri().path().starts_with(DOCS_PATH);
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let response = if target > limits::TARGET_BYTES {
        Problem::of(StatusCode::URI_TOO_LONG).into_response()
    } else {
        let Around { clock, tracer } = &*around;
        let traced = Traced::begin(tracer, clock, &mut request);
        let measured = Measured::begin(clock, &request);
        let response = without_panic(next.run(request)).await;
        measured.end(clock, &response);
        traced.end(clock, &response);
        as_problem(response)
    };
    conform(response, docs)
}

/// The panic's message was already logged where it arose; a client learns nothing of it.
async fn without_panic(answering: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(answering).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a handler panicked");
        Problem::of(StatusCode::INTERNAL_SERVER_ERROR).into_response()
    })
}

/// Nothing is guessed or kept.
fn conform(mut response: Response, docs: bool) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !docs {
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    response
}

/// An error is a problem, whoever reports it: those of the framework have other media types, or none.
fn as_problem(mut response: Response) -> Response {
    let status = response.status();
    let media_type = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let ours = matches!(media_type, Some(b"application/json"))
        || media_type.is_some_and(|media_type| media_type == PROBLEM_JSON.as_bytes());
    if !(status.is_client_error() || status.is_server_error()) || ours {
        return response;
    }
    let mut problem = Problem::of(status).into_response();
    if let Some(allow) = response.headers_mut().remove(ALLOW) {
        problem.headers_mut().insert(ALLOW, allow);
    }
    problem
}
