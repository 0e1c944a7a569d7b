//! A server that is a program, spoken to over stdin and stdout.

use super::{
    aws::Source,
    bench::{Bench, Scripted, until},
};
use crate::{
    AWS_META, CALL_META,
    proxy::settings::{Program, ProxySettings, StdioUpstream, UpstreamKind},
    tests::fixture::*,
};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc, time::Duration};

/// A server in a few lines of shell: it lists the approved tools, greets before it answers a call of `lookup`, dies
/// at `refund`, and says too much at `transfer`.
fn program() -> StdioUpstream {
    let tools = json!(definitions()).to_string();
    let script = format!(
        r#"echo "not a message"; echo "started with $GIVEN and ${{HIDDEN:-nothing}}" >&2
sleep 1000 & echo $! >> "$PIDS"; echo $$ >> "$PIDS"
while read -r line; do
  id=$(printf '%s' "$line" | sed 's/.*"id":\("[^"]*"\|[0-9]*\).*/\1/')
  case "$line" in
    *'"method":"initialize"'*) echo "{{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{{}}}}}}" ;;
    *'"method":"tools/list"'*) printf '{{"jsonrpc":"2.0","id":%s,"result":{{"tools":%s}}}}\n' "$id" '{tools}' ;;
    *'"name":"lookup"'*) printf '%s' "$line" > "$PIDS.line"; echo '{{"jsonrpc":"2.0","method":"notifications/message","params":{{}}}}'
      echo "{{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{{\"content\":[],\"given\":\"$GIVEN\"}}}}" ;;
    *'"name":"refund"'*) exit 3 ;;
    *'"name":"transfer"'*) head -c 30000 /dev/zero | tr '\0' x; echo ;;
    *'"id"'*'"method"'*) echo "{{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{{\"code\":-32601,\"message\":\"no\"}}}}" ;;
  esac
done"#
    );
    let mut upstream = StdioUpstream::new(Program::new("/bin/sh".into(), vec!["-c".into(), script]));
    upstream.max_processes = 2;
    upstream.max_answer_bytes = 20_000;
    upstream.answer_timeout = Duration::from_secs(10);
    upstream
}

async fn bench(pids: &Path) -> Bench {
    bench_with(pids, |_| {}).await
}

async fn bench_with(pids: &Path, change: impl FnOnce(&mut ProxySettings)) -> Bench {
    let mut upstream = program();
    upstream.program.environment = vec![
        ("PATH".into(), "/usr/bin:/bin".to_owned().into()),
        ("GIVEN".into(), "value".to_owned().into()),
        ("PIDS".into(), pids.to_str().unwrap().to_owned().into()),
    ];
    Bench::before(Scripted::idle(), UpstreamKind::Stdio(upstream), change).await
}

/// The processes that were started and still run.
fn running(pids: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(pids).unwrap_or_default();
    let pids = text.lines().filter_map(|line| line.parse().ok());
    // A zombie that nobody has waited for yet runs no more.
    let runs = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    };
    pids.filter(runs).collect()
}

fn scratch(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("deputize-guard-{}-{name}", std::process::id()));
    drop(std::fs::remove_file(&path));
    path
}

#[tokio::test]
async fn each_session_has_a_process_of_its_own_that_ends_with_it() {
    let pids = scratch("session");
    let bench = bench(&pids).await;
    let lookup = call("lookup", json!({}));
    assert_eq!(
        bench.granted(l1("lookup"), &[], &lookup).await.status,
        400,
        "without a session there is none"
    );
    let session = bench.session().await;
    let here = [("mcp-session-id", session.as_str())];
    let got = bench.granted(l1("lookup"), &here, &lookup).await;
    assert_eq!(got.header("content-type"), "text/event-stream", "it says something before it answers");
    let [greeting, result]: [Value; 2] = got.events().try_into().unwrap();
    assert_eq!(greeting["method"], "notifications/message");
    assert_eq!(result["result"]["given"], "value", "what it is given by name");
    let listed = bench.granted(l0(), &here, &list()).await.json();
    assert_eq!(listed["result"]["tools"], json!(definitions()));

    // It is told whose call it is, by the guard alone.
    let mut claimed = lookup.clone();
    claimed["params"]["_meta"] = json!({ CALL_META: "forged", AWS_META: "forged", "progressToken": "p" });
    let token = bench.token(l1("lookup"));
    assert_eq!(bench.post(&token, &here, &claimed).await.status, 200);
    let said: Value = serde_json::from_slice(&std::fs::read(pids.with_extension("line")).unwrap()).unwrap();
    assert_eq!(said["params"]["_meta"], json!({ CALL_META: token, "progressToken": "p" }));

    let before = running(&pids).len();
    assert_eq!(before, 4, "the guard's own and the session's, each with a child");
    let ended = bench.send_as(&bench.key, "DELETE", &bench.token(l0()), (&here, None)).await;
    assert_eq!(ended.status, 204);
    until(|| running(&pids).len() == 2).await;
    assert_eq!(bench.granted(l0(), &here, &list()).await.status, 404);

    let _one = bench.session().await;
    let _two = bench.session().await;
    let begin = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} });
    assert_eq!(bench.granted(l0(), &[], &begin).await.status, 503, "their number is bounded");
    bench.proxy.stop().await;
    until(|| running(&pids).is_empty()).await;
}

#[tokio::test]
async fn a_process_that_dies_or_says_too_much_takes_its_session_along() {
    let pids = scratch("death");
    let bench = bench(&pids).await;
    for tool in ["refund", "transfer"] {
        let session = bench.session().await;
        let here = [("mcp-session-id", session.as_str())];
        let lost = bench.granted(l3(tool, &json!({})), &here, &call(tool, json!({}))).await;
        assert_eq!(lost.status, 503, "{tool}: {lost:?}");
        assert_eq!(bench.granted(l0(), &here, &list()).await.status, 404, "{tool}: the session is gone");
        until(|| running(&pids).len() == 2).await;
        if tool == "refund" {
            let begin = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} });
            let soon = bench.granted(l0(), &[], &begin).await;
            assert_eq!(soon.status, 503, "what dies at once is not started again at once");
        }
        bench.clock.pass(Duration::from_secs(1));
    }
    let session = bench.session().await;
    let here = [("mcp-session-id", session.as_str())];
    assert_eq!(bench.granted(l0(), &here, &list()).await.status, 200, "a new session has a new process");
    drop(Arc::clone(&bench.proxy));
    bench.proxy.stop().await;
    until(|| running(&pids).is_empty()).await;
}

#[tokio::test]
async fn a_program_is_told_in_the_call_itself_where_its_aws_credentials_are() {
    let pids = scratch("aws");
    let hand_over = |settings: &mut ProxySettings| {
        settings.hands_over_aws = true;
        settings.credential_source = Some(Arc::<Source>::default());
    };
    let bench = bench_with(&pids, hand_over).await;
    let session = bench.session().await;
    let here = [("mcp-session-id", session.as_str())];
    let mut claimed = call("lookup", json!({}));
    claimed["params"]["_meta"] =
        json!({ AWS_META: { "uri": "http://127.0.0.1:1/", "authorization": "forged" } });
    assert_eq!(bench.granted(l1("lookup"), &here, &claimed).await.status, 200);
    let said: Value = serde_json::from_slice(&std::fs::read(pids.with_extension("line")).unwrap()).unwrap();
    let handed = said["params"]["_meta"][AWS_META].as_object().unwrap();
    assert_eq!(handed.len(), 2);
    assert!(handed["uri"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{handed:?}");
    assert_eq!(handed["authorization"].as_str().unwrap().len(), 43, "32 random bytes");
    bench.proxy.stop().await;
    until(|| running(&pids).is_empty()).await;
}
