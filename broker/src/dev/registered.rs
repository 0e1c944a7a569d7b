//! MCP servers of the developer's own: their registry records, approved as they stand.

use deputize_guard::proxy::HttpUpstream;
use deputize_issuer::registry::{Registry, ServerRecord};
use deputize_stand_ins::example_server::TENANT;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};
use tokio::net::TcpListener;
use url::{Host, Url};

use crate::{assemble::CannotStart, config::read};

/// Where a registered server runs: `ID=URL`.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    id: String,
    url: Url,
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, url) = text.split_once('=').ok_or("give ID=URL, such as mine=http://127.0.0.1:3001/mcp")?;
        let url = Url::parse(url).map_err(|error| format!("{url}: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("{url}: give an http or https URL"));
        }
        Ok(Self { id: id.to_owned(), url })
    }
}

/// For each record what its guard stands before, and where it listens: at the resource URI, which must be on this
/// machine. Nothing for servers whose guards run elsewhere.
pub(crate) async fn places(
    upstreams: &[Upstream],
    registered: &[ServerRecord],
) -> Result<Vec<Option<(HttpUpstream, TcpListener)>>, CannotStart> {
    let is_known = |upstream: &&Upstream| registered.iter().any(|record| record.id == upstream.id);
    if let Some(stranger) = upstreams.iter().find(|upstream| !is_known(upstream)) {
        let id = &stranger.id;
        return Err(CannotStart(format!(
            "--upstream {id}=…: no server of this id; give its record with --register"
        )));
    }
    let mut places = Vec::new();
    for record in registered {
        let Some(upstream) = upstreams.iter().find(|upstream| upstream.id == record.id) else {
            places.push(None);
            continue;
        };
        let address = address_of(&record.resource).ok_or_else(|| {
            CannotStart(format!(
                "{}: resource {:?}: the guard would listen there: make it http://127.0.0.1:PORT/mcp with a free PORT",
                record.id, record.resource
            ))
        })?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| CannotStart(format!("{}: cannot listen on {address}: {error}", record.id)))?;
        places.push(Some((HttpUpstream::new(upstream.url.clone()), listener)));
    }
    Ok(places)
}

/// Where on this machine a resource URI leads.
fn address_of(resource: &str) -> Option<SocketAddr> {
    let url = Url::parse(resource).ok().filter(|url| url.scheme() == "http" && url.path() != "/")?;
    let ip = match url.host()? {
        Host::Ipv4(ip) => IpAddr::V4(ip),
        Host::Ipv6(ip) => IpAddr::V6(ip),
        Host::Domain("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Host::Domain(_) => return None,
    };
    Some(SocketAddr::new(ip, url.port_or_known_default()?)).filter(|address| address.ip().is_loopback())
}

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
    use crate::dev::example::Example;
    use deputize_stand_ins::example_server::ExampleServer;
    use serde_json::{Value, json};

    fn record(id: &str, resource: &str) -> Value {
        let own = ExampleServer::mailer(resource, "x").unwrap();
        let mut record = own.record().clone();
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
        read(&files, &[&Example::of(crm).unwrap().record])
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
    #[test]
    fn a_guard_listens_where_a_resource_on_this_machine_says() {
        let address = |resource: &str| address_of(resource).map(|address| address.to_string());
        assert_eq!(address("http://127.0.0.1:9100/mcp").as_deref(), Some("127.0.0.1:9100"));
        assert_eq!(address("http://localhost:9100/a/b").as_deref(), Some("127.0.0.1:9100"));
        assert_eq!(address("http://[::1]:9100/mcp").as_deref(), Some("[::1]:9100"));
        for elsewhere in [
            "https://127.0.0.1:9100/mcp",
            "http://10.0.0.1:9100/mcp",
            "http://mine.example/mcp",
            "http://127.0.0.1:9100/",
        ] {
            assert_eq!(address(elsewhere), None, "{elsewhere}");
        }
        assert!("mine=http://127.0.0.1:3001/mcp".parse::<Upstream>().is_ok());
        for bad in ["mine", "mine=", "mine=ftp://127.0.0.1/", "mine=127.0.0.1:3001"] {
            assert!(bad.parse::<Upstream>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_guard_stands_before_a_registered_server_alone() {
        let upstream: Upstream = "other=http://127.0.0.1:3001/mcp".parse().unwrap();
        let mine = read_all(&[record("mine", "https://mine.example/mcp")]).unwrap();
        let CannotStart(text) = places(std::slice::from_ref(&upstream), &mine).await.unwrap_err();
        assert!(text.contains("other") && text.contains("--register"), "{text}");
        assert!(places(&[], &mine).await.unwrap().iter().all(Option::is_none), "its guard runs elsewhere");
        let upstream = Upstream { id: "mine".to_owned(), ..upstream };
        let CannotStart(text) = places(&[upstream], &mine).await.unwrap_err();
        assert!(text.contains("mine.example") && text.contains("127.0.0.1:PORT"), "{text}");
    }
}
