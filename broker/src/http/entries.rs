//! Administration of door 2: registration entries, and why a process is entitled to what.

use axum::{
    Extension, Json,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    response::Response,
};
use deputize_issuer::{
    clock,
    desk::Desk,
    entry::{Explained, Origin, Reason, Registered, Verdict},
    workload::Workload,
};
use deputize_workload_api::{
    attest::Attestor,
    peer::{NotAttested, Peer},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};
use uuid::Uuid;

use super::{
    error::{self, DoorError},
    lifecycle::to_its_end,
    source::{RequestId, refuse},
};
use crate::{
    config::raw::EntryFile,
    federation::Federation,
    registration::{NotRegistered, Registration},
};

/// What administration of door 2 works on.
pub struct EntryAdministration {
    /// The desk.
    pub desk: Arc<Desk>,
    /// The entries.
    pub registration: Arc<Registration>,
    /// Foreign trust domains.
    pub federation: Arc<Federation>,
    /// Looks at processes as the socket does.
    pub attestor: Attestor,
}

/// Why an order of an administrator is not carried out, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadOrder {
    /// It cannot be, as it stands.
    Invalid(String),
    /// It is about something that is not there.
    Unknown(String),
    /// Something else is in the way.
    Conflict(String),
    /// Not now.
    Unavailable(String),
}

/// An entry, as it is listed.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    entry: EntryFile,
    /// A file, or `administration`.
    from: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ended: bool,
    /// The entry of this id that administration made: it does not hold while this one, a file's, does.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadows: Option<EntryFile>,
}

/// Which entries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryRange {
    /// Those whose names come after this one.
    #[serde(default)]
    after: String,
    #[serde(default = "EntryRange::default_limit")]
    limit: usize,
}

impl EntryRange {
    fn default_limit() -> usize {
        MAX_LISTED
    }
}

/// Answers `GET /admin/entries?after=ID&limit=N`: entries in the order of their names, at most 1,000; `next` is where to
/// go on, if there are more.
pub async fn list(
    State(administration): State<Arc<EntryAdministration>>,
    Extension(RequestId(decision_id)): Extension<RequestId>,
    range: Result<Query<EntryRange>, QueryRejection>,
) -> Response {
    let Ok(Query(range)) = range else { return refuse(BAD_RANGE) };
    let (entries, now) = (administration.registration.live().now(), administration.now_seconds());
    let limit = range.limit.clamp(1, MAX_LISTED);
    let mut rest = entries.iter().skip_while(|entry| entry.id() <= range.after.as_str());
    let page: Vec<_> = rest.by_ref().take(limit).map(Arc::as_ref).collect();
    let listed = match administration.listed(&page, now).await {
        Ok(listed) => listed,
        Err(error) => return administration.refuse(error, decision_id),
    };
    let next = rest.next().and(listed.last()).map(|last| last.entry.id.clone());
    let total = entries.len();
    error::json(StatusCode::OK, &json!({ "total": total, "entries": listed, "next": next }))
}

/// Answers `GET /admin/federation`: how each foreign trust domain stands.
pub async fn federation(State(administration): State<Arc<EntryAdministration>>) -> Response {
    error::json(StatusCode::OK, &json!({ "federation": administration.federation.status() }))
}

/// Answers `GET /admin/entries/{id}`.
pub async fn show(
    State(administration): State<Arc<EntryAdministration>>,
    Extension(RequestId(decision_id)): Extension<RequestId>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let Ok(Path(id)) = id else { return refuse(DoorError::NotFound) };
    let entries = administration.registration.live().now();
    let Some(entry) = entries.get(&id) else {
        return administration.refuse(NotRegistered::Unknown(id), decision_id);
    };
    match administration.listed(&[entry], administration.now_seconds()).await {
        Ok(listed) => error::json(StatusCode::OK, &listed.first()),
        Err(error) => administration.refuse(error, decision_id),
    }
}

/// Answers `POST /admin/entries` with an entry as a file would have it; without `id` it gets one.
pub async fn create(
    State(administration): State<Arc<EntryAdministration>>,
    Extension(RequestId(decision_id)): Extension<RequestId>,
    body: Result<Json<Value>, JsonRejection>,
) -> Response {
    let Ok(Json(mut body)) = body else { return refuse(BAD_ENTRY) };
    let Ok(fresh) = clock::new_id(administration.desk.clock.as_ref()) else {
        return refuse(DoorError::Unavailable);
    };
    if let Some(members) = body.as_object_mut() {
        members.entry("id").or_insert_with(|| fresh.to_string().into());
    }
    let draft = serde_json::from_value::<EntryFile>(body).map_err(|error| error.to_string());
    let draft = match draft.and_then(EntryFile::into_draft) {
        Ok(draft) => draft,
        Err(problem) => return administration.bad_order(BadOrder::Invalid(problem), decision_id),
    };
    to_its_end(async move {
        let (desk, registration) = (&administration.desk, &administration.registration);
        match registration.create(desk, decision_id, draft).await {
            Ok(entry) => error::json(StatusCode::CREATED, &Listed::of(&entry, administration.now_seconds())),
            Err(error) => administration.refuse(error, decision_id),
        }
    })
    .await
}

/// Answers `DELETE /admin/entries/{id}`; `still_in` is the file whose entry of this id still holds, if there is one.
pub async fn delete(
    State(administration): State<Arc<EntryAdministration>>,
    Extension(RequestId(decision_id)): Extension<RequestId>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let Ok(Path(id)) = id else { return refuse(DoorError::NotFound) };
    to_its_end(async move {
        let (desk, registration) = (&administration.desk, &administration.registration);
        match registration.delete(desk, decision_id, &id).await {
            Ok(None) => error::json(StatusCode::OK, &json!({ "deleted": id })),
            Ok(Some(file)) => error::json(StatusCode::OK, &json!({ "deleted": id, "still_in": file })),
            Err(error) => administration.refuse(error, decision_id),
        }
    })
    .await
}

/// Which process.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inquiry {
    pid: i32,
}

/// Answers `POST /admin/workloads/explain` with `{"pid": N}`: what the socket would see of that process, and what each
/// entry says of it. The nearest entries alone where there are many.
pub async fn explain(
    State(administration): State<Arc<EntryAdministration>>,
    Extension(RequestId(decision_id)): Extension<RequestId>,
    inquiry: Result<Json<Inquiry>, JsonRejection>,
) -> Response {
    let Ok(Json(Inquiry { pid })) = inquiry else { return refuse(BAD_INQUIRY) };
    let workload = match administration.look_at(pid).await {
        Ok(workload) => workload,
        Err(why) => {
            let problem = format!("process {pid} cannot be attested: {why}");
            return administration.bad_order(BadOrder::Invalid(problem), decision_id);
        }
    };
    let entries = administration.registration.live().now();
    let explained = entries.explain(&workload, administration.now_seconds(), MAX_EXPLAINED);
    let selectors: Vec<String> = workload.selectors().iter().map(ToString::to_string).collect();
    // Outside of containers there is no pod that could be known.
    let lacks_pods = administration.attestor.lacks_pods();
    let lacks_pods = lacks_pods.filter(|_| workload.selectors().iter().any(|one| one.kind() == "container"));
    error::json(
        StatusCode::OK,
        &json!({
            "pid": pid,
            "node": workload.node().to_string(),
            "selectors": selectors,
            "entries": explained.iter().map(|one| told(one, lacks_pods.as_deref())).collect::<Vec<Value>>(),
            "total": entries.len(),
        }),
    )
}

fn told(explained: &Explained, lacks_pods: Option<&str>) -> Value {
    let said = |reason: &Reason| match (reason, lacks_pods) {
        (Reason::Missing(selector), Some(why)) if selector.kind() == "k8s" => format!("{reason}: {why}"),
        _ => reason.to_string(),
    };
    let entry = &explained.entry;
    let (id, origin) = (entry.id(), entry.origin().to_string());
    match &explained.verdict {
        Verdict::Entitled(spiffe_id) => {
            json!({ "id": id, "from": origin, "entitled": true, "spiffe_id": spiffe_id.to_string() })
        }
        Verdict::NotEntitled(reasons) => json!({
            "id": id,
            "from": origin,
            "entitled": false,
            "spiffe_id": entry.written_id(),
            "because": reasons.iter().map(said).collect::<Vec<String>>(),
        }),
    }
}

impl EntryAdministration {
    async fn look_at(&self, pid: i32) -> Result<Workload, NotAttested> {
        self.attestor.explain(&Peer::of_process(pid)?).await
    }

    /// With what administration made under the same ids.
    async fn listed(&self, entries: &[&Registered], now_seconds: u64) -> Result<Vec<Listed>, NotRegistered> {
        let of_files = entries.iter().filter(|entry| matches!(entry.origin(), Origin::File(_)));
        let ids = of_files.map(|entry| entry.id().to_owned()).collect();
        let shadowed = self.registration.shadowed(ids).await?;
        let mut shadowed: HashMap<String, EntryFile> =
            shadowed.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
        let listed = entries.iter().map(|entry| {
            let shadows = shadowed.remove(entry.id());
            Listed { shadows, ..Listed::of(entry, now_seconds) }
        });
        Ok(listed.collect())
    }

    fn now_seconds(&self) -> u64 {
        self.desk.clock.now_seconds()
    }

    fn refuse(&self, error: NotRegistered, decision_id: Uuid) -> Response {
        let said = error.to_string();
        let order = match error {
            NotRegistered::Bad(_) => BadOrder::Invalid(said),
            NotRegistered::Unknown(_) => BadOrder::Unknown(said),
            NotRegistered::OfFile { .. } => BadOrder::Conflict(said),
            NotRegistered::Unavailable => BadOrder::Unavailable(said),
        };
        self.bad_order(order, decision_id)
    }

    fn bad_order(&self, order: BadOrder, decision_id: Uuid) -> Response {
        error::bad_order(order, &self.desk.settings.issuer, decision_id)
    }
}

impl Listed {
    fn of(entry: &Registered, now_seconds: u64) -> Self {
        let draft = entry.to_draft();
        let ended = draft.expires_at_seconds.is_some_and(|end| now_seconds >= end);
        Self { entry: draft.into(), from: entry.origin().to_string(), ended, shadows: None }
    }
}

const BAD_RANGE: DoorError =
    DoorError::Order("after is an entry's id, limit a whole number, and there is nothing else");
const BAD_ENTRY: DoorError =
    DoorError::Order("send an entry as JSON: spiffe_id, selectors, and what else a file has");
const BAD_INQUIRY: DoorError =
    DoorError::Order("send JSON with pid, the number of a process of this machine");
const MAX_LISTED: usize = 1000;
const MAX_EXPLAINED: usize = 100;
