//! MCP servers of the developer's own: their registry records, approved as they stand.

use deputize_issuer::registry::{Registry, ServerRecord};
use std::path::{Path, PathBuf};

use super::example_server::TENANT;
use crate::{assemble::CannotStart, config::read};

/// Reads the records and checks them beside those of the environment's own servers. A record belongs to the
/// environment's one tenant, and without a `client_id` its guard is the client `{id}-guard`.
pub(crate) fn read(files: &[PathBuf], own: &[&ServerRecord]) -> Result<Vec<ServerRecord>, CannotStart> {
    let mut all: Vec<ServerRecord> = own.iter().copied().cloned().collect();
    for file in files {
        let mut record: ServerRecord =
            read::read_yaml(file).map_err(|error| CannotStart(error.to_string()))?;
        TENANT.clone_into(&mut record.tenant);
        // On the developer's own machine a record that was just imported is approved as it stands.
        record.approved = true;
        record.client_id.get_or_insert_with(|| format!("{}-guard", record.id));
        all.push(record);
        // One after the other, so that what is wrong is known to be wrong with this one.
        check(file, &all)?;
    }
    Ok(all.split_off(own.len()))
}

fn check(file: &Path, all: &[ServerRecord]) -> Result<(), CannotStart> {
    match Registry::build(all.to_vec()) {
        Ok(_) => Ok(()),
        Err(errors) => {
            let lines = errors.iter().map(|error| format!("{}: {error}", file.display()));
            Err(CannotStart(lines.collect::<Vec<_>>().join("\n")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::example_server::ExampleServer;
    use serde_json::{Value, json};

    fn record(id: &str, resource: &str) -> Value {
        let own = ExampleServer::mailer(resource, "x").unwrap();
        let mut record = serde_json::to_value(own.record()).unwrap();
        (record["id"], record["tenant"], record["client_id"]) = (json!(id), json!("acme"), Value::Null);
        record["approved"] = json!(false);
        record
    }

    fn read_all(records: &[Value]) -> Result<Vec<ServerRecord>, CannotStart> {
        let folder = tempfile::tempdir().unwrap();
        let write = |(n, record): (usize, &Value)| {
            let file = folder.path().join(format!("{n}.json"));
            std::fs::write(&file, record.to_string()).unwrap();
            file
        };
        let files: Vec<PathBuf> = records.iter().enumerate().map(write).collect();
        let crm = ExampleServer::crm("http://127.0.0.1:7001/mcp", "crm-guard").unwrap();
        read(&files, &[crm.record()])
    }

    #[test]
    fn a_record_joins_the_environment() {
        let mine = record("mine", "http://127.0.0.1:7009/mcp");
        let read = read_all(&[mine, record("also-mine", "https://mine.example/mcp")]).unwrap();
        assert_eq!((read[0].id.as_str(), read[0].tenant.as_str()), ("mine", TENANT));
        assert_eq!(read[0].client_id.as_deref(), Some("mine-guard"));
        assert_eq!(read[1].resource, "https://mine.example/mcp");
    }

    #[test]
    fn what_the_registry_would_not_take_is_refused_with_its_file() {
        let good = || record("mine", "http://127.0.0.1:7009/mcp");
        let mut drifted = good();
        drifted["tools"][0]["definition"]["description"] = json!("another");
        let mut stranger = good();
        stranger["comment"] = json!("?");
        for (records, problem) in [
            (vec![record("crm", "http://127.0.0.1:7009/mcp")], "id is taken"),
            (vec![record("mine", "http://127.0.0.1:7001/mcp")], "is taken by another server"),
            (vec![record("mine", "http://mine.example/mcp")], "must be https"),
            (vec![record("../mine", "http://127.0.0.1:7009/mcp")], "id must be"),
            (vec![drifted], "tool_digest is"),
            (vec![stranger], "unknown field"),
        ] {
            let CannotStart(text) = read_all(&records).unwrap_err();
            assert!(text.contains(problem) && text.contains("0.json"), "{text}");
        }
        assert!(read_all(&[good(), good()]).unwrap_err().0.contains("1.json"));
    }
}
