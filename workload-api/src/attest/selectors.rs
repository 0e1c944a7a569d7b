//! What was seen of a process, in the words that entries are written in.

use super::{
    cgroup::Placement,
    examine::Seen,
    executable::Content,
    names::{Id, Names},
    overflow::Overflow,
    status::Credentials,
};
use deputize_issuer::workload::Selector;
use std::{collections::BTreeSet, fmt::Write};

/// The selectors of one process. What makes no selector (a path with control characters, say) is left out.
#[derive(Debug, Default)]
pub(crate) struct Selectors(BTreeSet<Selector>);

impl Selectors {
    /// `unix:uid:`, `unix:user:`, `unix:gid:`, `unix:group:`, `unix:supplementary_gid:`,
    /// `unix:supplementary_group:`. A number that stands for strangers is nobody's. Without a directory that is the
    /// process's own there are no names.
    pub(crate) async fn users_and_groups(
        &mut self,
        seen: &Credentials,
        overflow: Overflow,
        names: Option<&Names>,
    ) {
        let user = Some(("uid", "user", Id::User(seen.effective_uid)));
        let group = Some(("gid", "group", Id::Group(seen.effective_gid)));
        let others = seen
            .supplementary_gids
            .iter()
            .map(|&gid| ("supplementary_gid", "supplementary_group", Id::Group(gid)));
        let known: Vec<_> = user
            .into_iter()
            .chain(group)
            .chain(others)
            .filter(|(_, _, id)| match *id {
                Id::User(uid) => overflow.is_one_user(uid),
                Id::Group(gid) => overflow.is_one_group(gid),
            })
            .collect();
        let ids: Vec<Id> = known.iter().map(|(_, _, id)| *id).collect();
        let named = match names {
            Some(names) => names.names(&ids).await,
            None => vec![None; ids.len()],
        };
        for ((number_word, name_word, id), name) in known.into_iter().zip(named) {
            let (Id::User(number) | Id::Group(number)) = id;
            self.add("unix", number_word, &number.to_string());
            if let Some(name) = name {
                self.add("unix", name_word, &name);
            }
        }
    }

    /// `unix:path:`, `unix:sha256:`.
    pub(crate) fn program(&mut self, seen: &Seen) {
        if let Some(path) = &seen.path {
            self.add("unix", "path", path);
        }
        if let Some(Content::Sha256(digest)) = &seen.content {
            let mut hex = String::with_capacity(64);
            for byte in digest {
                let _ = write!(hex, "{byte:02x}");
            }
            self.add("unix", "sha256", &hex);
        }
    }

    /// `systemd:id:`, `systemd:slice:`, `container:id:`, `container:runtime:`, `k8s:pod_uid:`.
    pub(crate) fn placement(&mut self, placement: &Placement) {
        let container = placement.container.as_ref();
        let parts = [
            ("systemd", "id", placement.unit.as_deref()),
            ("systemd", "slice", placement.slice.as_deref()),
            ("container", "id", container.map(|one| one.id.as_str())),
            ("container", "runtime", container.and_then(|one| one.runtime)),
            ("k8s", "pod_uid", container.and_then(|one| one.pod_uid.as_deref())),
        ];
        for (kind, word, value) in parts {
            if let Some(value) = value {
                self.add(kind, word, value);
            }
        }
    }

    /// What is known of its pod: `ns:…`, `sa:…`, `pod_label:…`.
    pub(crate) fn pod(&mut self, values: Vec<String>) {
        self.0.extend(values.iter().filter_map(|value| Selector::new("k8s", value).ok()));
    }

    pub(crate) fn into_set(self) -> BTreeSet<Selector> {
        self.0
    }

    fn add(&mut self, kind: &str, word: &str, value: &str) {
        self.0.extend(Selector::new(kind, &format!("{word}:{value}")).ok());
    }
}
