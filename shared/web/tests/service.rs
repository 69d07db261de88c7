//! Commands, reads, waiting and the operator's routes, over a running service that keeps notes.
#![expect(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;
use waybill_contract::{OrderId as NoteId, Text};
use waybill_runtime::{
    Answer, Clock, Context, DecodeError, Envelope, Event, Evolve, Ids, Location, Message,
    Migration, Migrations, Recorded, Runtime, Service, TimerChange, Version, row, tables,
};
use waybill_web::{App, ById, Items, Listing, Named, Problem, Seen, Site, Submitted, Unfiltered};

row! {
    /// A note.
    struct Note in notes for Noted {
        /// Its identity.
        id: text NoteId,
        /// What it says.
        says: text Text,
    }
    list newest by id where [];
}

tables! {
    /// What the service owns.
    struct NoteTables for Noted {
        /// Every note.
        notes: Note,
    }
}

/// A note was written or changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Noted {
    id: NoteId,
    says: Text,
}

impl Event for Noted {
    fn kind(&self) -> &'static str {
        "noted"
    }
    fn schema(&self) -> i64 {
        1
    }
    fn stream(&self) -> String {
        format!("note-{}", self.id)
    }
    fn order(&self) -> Option<uuid::Uuid> {
        None
    }
    fn encode(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
    fn decode(kind: &str, _: i64, data: &str) -> Result<Self, DecodeError> {
        let malformed = |cause| DecodeError::Malformed { kind: kind.to_owned(), cause };
        serde_json::from_str(data).map_err(malformed)
    }
}

impl Evolve for Note {
    fn changed_by(event: &Noted) -> Vec<NoteId> {
        vec![event.id]
    }
    fn evolve(_: Option<Self>, _: &NoteId, recorded: &Recorded<'_, Noted>) -> Option<Self> {
        let Noted { id, says } = recorded.event.clone();
        Some(Self { id, says, version: Version(0) })
    }
}

/// Write a note, or another text into one.
#[derive(Debug)]
struct Write {
    id: Option<NoteId>,
    says: Text,
}

#[derive(Debug, thiserror::Error)]
#[error("there is no such note")]
struct NoNote;

impl From<NoNote> for Problem {
    fn from(refusal: NoNote) -> Self {
        Self::not_found(refusal.to_string())
    }
}

#[derive(Debug)]
struct Notes;

impl Service for Notes {
    const NAME: &'static str = "notes";
    const HEARS: &'static [&'static str] = &[];
    const MIGRATIONS: &'static [Migration] = &[Migration {
        version: 2001,
        name: "notes",
        sql: "create table notes (id text not null primary key, says text not null, \
              version bigint not null);",
    }];

    type Tables = NoteTables;
    type Event = Noted;
    type Heard = ();
    type Command = Write;
    type Timer = ();
    type Refusal = NoNote;
    type Settings = ();

    fn hear(_: &Envelope) -> Result<(), DecodeError> {
        Ok(())
    }
    fn concerns(message: &Message<Self>, tables: &mut NoteTables) {
        if let Message::Command(Write { id: Some(id), .. }) = message {
            tables.notes.want(id);
        }
    }
    fn decide(
        message: &Message<Self>,
        tables: &NoteTables,
        context: &Context<'_, Self>,
    ) -> Result<Vec<Noted>, NoNote> {
        let Message::Command(write) = message else { return Ok(Vec::new()) };
        let id = match write.id {
            Some(id) => tables.notes.get(&id).ok_or(NoNote)?.id,
            None => NoteId(context.fresh_id),
        };
        Ok(vec![Noted { id, says: write.says.clone() }])
    }
    fn timers(_: &Noted) -> Vec<TimerChange<()>> {
        Vec::new()
    }
    fn version(write: &Write, tables: &NoteTables) -> Option<Version> {
        Some(tables.notes.get(&write.id?)?.version)
    }
    fn answer(write: &Write, tables: &NoteTables, context: &Context<'_, Self>) -> Answer {
        let id = write.id.unwrap_or(NoteId(context.fresh_id));
        let note = tables.notes.get(&id).unwrap();
        match write.id {
            Some(_) => Answer::ok(note.version, &NoteView::from(note)),
            None => Answer::created(format!("/notes/{id}"), note.version, &NoteView::from(note)),
        }
    }
}

#[derive(Debug, Serialize)]
struct NoteView {
    id: NoteId,
    says: Text,
}

impl From<&Note> for NoteView {
    fn from(note: &Note) -> Self {
        Self { id: note.id, says: note.says.clone() }
    }
}

#[derive(Debug, Deserialize)]
struct Form {
    says: Text,
}

async fn write(
    State(app): State<App<Notes>>,
    submitted: Submitted<Form>,
) -> Result<Response, Problem> {
    app.submit(submitted.terms, Write { id: None, says: submitted.body.says }).await
}

async fn rewrite(
    State(app): State<App<Notes>>,
    Named(id): Named<NoteId>,
    submitted: Submitted<Form>,
) -> Result<Response, Problem> {
    app.submit(submitted.terms, Write { id: Some(id), says: submitted.body.says }).await
}

async fn show(
    State(app): State<App<Notes>>,
    Named(id): Named<NoteId>,
    seen: Seen,
) -> Result<Response, Problem> {
    app.show(&id, &seen, |note: &Note| NoteView::from(note)).await
}

async fn list(
    State(app): State<App<Notes>>,
    listing: Listing<Unfiltered<ById>>,
) -> Result<Items<NoteView>, Problem> {
    app.list(&[], &listing.page, |note: &Note| note.into()).await
}

struct Fixture {
    router: Router,
    stopping: CancellationToken,
    runtime: Runtime,
    _folder: TempDir,
}

async fn notes() -> Fixture {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let (stopping, location) = (CancellationToken::new(), Location::Folder(folder.path().into()));
    let opened = Runtime::open(location, None, clock.clone(), Ids::system(), Migrations::Apply);
    let runtime = opened.await.unwrap();
    let handle = runtime.host::<Notes>(()).await.unwrap();
    let api = OpenApiRouter::default()
        .route("/notes", post(write).get(list))
        .route("/notes/{id}", get(show).patch(rewrite));
    let site = Site::new(clock, runtime.health().clone(), stopping.clone());
    let router = site.service(handle, api).into_router().unwrap();
    Fixture { router, stopping, runtime, _folder: folder }
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Fixture {
    async fn send(&self, line: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let (method, path) = line.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(path);
        let request = request.header("content-type", "application/json");
        let request = headers.iter().fold(request, |r, (name, value)| r.header(*name, *value));
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = to_bytes(body, 1_000_000).await.unwrap();
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        }
    }

    async fn ask(&self, path: &str) -> Reply {
        self.send(&format!("GET {path}"), &[], "").await
    }

    async fn written(&self, says: &str) -> String {
        let reply = self.send("POST /notes", &[], &format!(r#"{{"says": "{says}"}}"#)).await;
        assert_eq!(reply.status, 201);
        reply.header("location").to_owned()
    }
}

#[tokio::test]
async fn what_is_written_can_be_read_at_its_address() {
    let notes = notes().await;
    let path = notes.written("hello").await;
    let reply = notes.ask(&path).await;
    assert_eq!((reply.status, reply.header("etag")), (200, "\"1\""));
    assert_eq!(reply.body["says"], "hello");
    assert_eq!(notes.ask("/notes/01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11").await.status, 404);
    notes.runtime.stop().await;
}

#[tokio::test]
async fn a_key_gives_the_first_answer_again_and_refuses_another_request() {
    let notes = notes().await;
    let key = [("idempotency-key", "k-1")];
    let first = notes.send("POST /notes", &key, r#"{"says": "once"}"#).await;
    let again = notes.send("POST /notes", &key, r#"{"says": "once"}"#).await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(notes.send("POST /notes", &key, r#"{"says": "twice"}"#).await.status, 422);
    let path = format!("PATCH {}", first.header("location"));
    assert_eq!(notes.send(&path, &key, r#"{"says": "once"}"#).await.status, 422);
    assert_eq!(notes.ask("/notes").await.body["items"].as_array().unwrap().len(), 1);
    notes.runtime.stop().await;
}

#[tokio::test]
async fn a_change_is_refused_to_who_has_not_seen_the_last_one() {
    let notes = notes().await;
    let line = format!("PATCH {}", notes.written("one").await);
    let seen = [("if-match", "\"1\"")];
    assert_eq!(notes.send(&line, &seen, r#"{"says": "two"}"#).await.header("etag"), "\"2\"");
    assert_eq!(notes.send(&line, &seen, r#"{"says": "three"}"#).await.status, 412);
    assert_eq!(notes.send(&line, &[("if-match", "*")], r#"{"says": "three"}"#).await.status, 200);
    let nowhere = "PATCH /notes/01937b6e-7f5a-7c3e-9a51-3f0c6f2d8b11";
    assert_eq!(notes.send(nowhere, &[], r#"{"says": "x"}"#).await.status, 404);
    notes.runtime.stop().await;
}

#[tokio::test]
async fn a_list_goes_on_where_the_page_before_ended() {
    let notes = notes().await;
    for says in ["a", "b", "c"] {
        notes.written(says).await;
    }
    let page = notes.ask("/notes?limit=2").await.body;
    assert_eq!((&page["items"][0]["says"], &page["items"][1]["says"]), (&json!("c"), &json!("b")));
    let cursor = page["next"].as_str().unwrap();
    let last = notes.ask(&format!("/notes?limit=2&cursor={cursor}")).await.body;
    assert_eq!((&last["items"][0]["says"], &last["next"]), (&json!("a"), &Value::Null));
    notes.runtime.stop().await;
}

#[tokio::test]
async fn a_reader_can_wait_for_a_change() {
    let notes = notes().await;
    let path = notes.written("one").await;
    let (line, change) = (format!("GET {path}"), format!("PATCH {path}"));
    let wait = [("if-none-match", "\"1\""), ("prefer", "wait=30")];
    let (reply, _) = tokio::join!(notes.send(&line, &wait, ""), async {
        sleep(Duration::from_millis(50)).await;
        notes.send(&change, &[], r#"{"says": "two"}"#).await
    });
    assert_eq!((reply.status, reply.header("etag")), (200, "\"2\""));
    assert_eq!(reply.header("preference-applied"), "wait=30");

    let wait = [("if-none-match", "\"2\""), ("prefer", "wait=1")];
    assert_eq!(notes.send(&line, &wait, "").await.status, 304);
    notes.runtime.stop().await;
}

#[tokio::test]
async fn who_waits_is_answered_when_the_server_stops() {
    let notes = notes().await;
    let line = format!("GET {}", notes.written("one").await);
    let wait = [("if-none-match", "\"1\""), ("prefer", "wait=60")];
    let (reply, ()) =
        tokio::join!(timeout(Duration::from_secs(10), notes.send(&line, &wait, "")), async {
            sleep(Duration::from_millis(50)).await;
            notes.stopping.cancel();
        });
    assert_eq!(reply.unwrap().status, 304);
    notes.runtime.stop().await;
}

#[tokio::test]
async fn operators_see_how_far_a_service_is() {
    let notes = notes().await;
    notes.written("one").await;
    let consumers = notes.ask("/v1/ops/notes/consumers").await.body;
    assert_eq!(consumers["items"][0]["name"], "notes");
    assert_eq!(consumers["next"], Value::Null);
    let outbox = notes.ask("/v1/ops/notes/outbox").await.body;
    assert_eq!(outbox["head"], 1);
    let letters = notes.ask("/v1/ops/notes/dead-letters?status=parked").await;
    assert_eq!((letters.status, &letters.body["items"]), (200, &json!([])));
    assert_eq!(notes.ask("/v1/ops/notes/dead-letters?status=lost").await.status, 422);
    for wish in ["retry", "discard"] {
        let line = format!("POST /v1/ops/notes/dead-letters/nothing/{wish}");
        assert_eq!(notes.send(&line, &[], "").await.status, 404);
    }
    assert_eq!(notes.ask("/v1/ops/unknown/outbox").await.status, 404);
    notes.runtime.stop().await;
}
