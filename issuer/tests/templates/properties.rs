//! Thousands of renderings of each template, hostile arguments among them: whatever is not denied is the one resource,
//! in time. Not even an Allow of a resource policy that names the session reaches further.

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestRunner},
};
use serde_json::json;
use std::{cell::Cell, collections::BTreeMap};

use crate::{
    alice,
    iam::{Policy, Request, grants, has},
    render, template, text,
};

#[test]
fn restart_instance() {
    holds("restart-instance", &text("restart-instance"), |id, request| {
        request.action.eq_ignore_ascii_case("ec2:RebootInstances")
            && request.resource == arn("ec2", &format!("instance/{id}"))
    });
}

#[test]
fn read_reports() {
    holds("read-reports", &text("read-reports"), |prefix, request| match request.action.as_str() {
        "s3:GetObject" => {
            is_of_the_account(request)
                && request.resource.starts_with(&format!("arn:aws:s3:::acme-reports/published/{prefix}"))
        }
        "s3:ListBucket" => {
            is_of_the_account(request)
                && request.resource == "arn:aws:s3:::acme-reports"
                && request.context.get("s3:prefix") == Some(&vec![format!("published/{prefix}")])
        }
        _ => false,
    });
}

#[test]
fn a_list_of_what_is_like_a_prefix() {
    let like = text("read-reports").replace("operator: StringEquals", "operator: StringLike").replace(
        "[[{ literal: published/ }, { param: prefix }]]",
        "[[{ literal: published/ }, { param: prefix }, wildcard]]",
    );
    holds("read-reports", &like, |prefix, request| {
        let below = format!("published/{prefix}");
        is_of_the_account(request)
            && match request.action.as_str() {
                "s3:GetObject" => request.resource.starts_with(&format!("arn:aws:s3:::acme-reports/{below}")),
                "s3:ListBucket" => {
                    let listed = request.context.get("s3:prefix");
                    request.resource == "arn:aws:s3:::acme-reports"
                        && listed.is_some_and(|listed| listed.len() == 1 && listed[0].starts_with(&below))
                }
                _ => false,
            }
    });
}

#[test]
fn a_list_of_so_many_at_most() {
    holds("list-some", LIST_SOME, |most, request| {
        let asked = request.context.get("s3:max-keys");
        request.action == "s3:ListBucket"
            && request.resource == "arn:aws:s3:::acme-reports"
            && is_of_the_account(request)
            && asked.is_some_and(|asked| {
                asked.len() == 1 && asked[0].parse::<i64>().unwrap() <= most.parse::<i64>().unwrap()
            })
    });
}

#[test]
fn a_bucket_that_the_call_names_is_one_of_the_account() {
    holds("read-bucket", READ_BUCKET, |bucket, request| {
        request.action == "s3:GetObject"
            && is_of_the_account(request)
            && request.resource.starts_with(&format!("arn:aws:s3:::acme-{bucket}/"))
    });
}

#[test]
fn query_orders() {
    holds("query-orders", &text("query-orders"), |partition, request| {
        let keys = request.context.get("dynamodb:LeadingKeys");
        matches!(request.action.as_str(), "dynamodb:Query" | "dynamodb:GetItem")
            && request.resource == arn("dynamodb", "table/orders")
            && keys.is_some_and(|keys| !keys.is_empty() && keys.iter().all(|key| key == partition))
    });
}

#[test]
fn read_log_group() {
    holds("read-log-group", &text("read-log-group"), |group, request| {
        let name = group.rsplit_once("log-group:").unwrap().1;
        let name = name.strip_suffix(":*").unwrap_or(name);
        matches!(request.action.as_str(), "logs:FilterLogEvents" | "logs:GetLogEvents")
            && request.resource.starts_with(&arn("logs", &format!("log-group:{name}:")))
    });
}

#[test]
fn start_execution() {
    holds("start-execution", &text("start-execution"), |machine, request| {
        request.action == "states:StartExecution"
            && request.resource == arn("states", &format!("stateMachine:agent-{machine}"))
    });
}

#[test]
fn a_parameter_that_admits_what_iam_reads_as_more() {
    let wide = text("start-execution")
        .replace("max_length: 60", "max_length: 20\n    allow: '*?${}:%#;[] '")
        .replace("^[a-z][a-z0-9-]*$", "^.*$");
    holds("wide", &wide, |machine, request| {
        request.action == "states:StartExecution"
            && request.resource == arn("states", &format!("stateMachine:agent-{machine}"))
    });
}

/// For every argument that the template takes: what the policy does not deny is `own`, and in the window.
fn holds(name: &str, yaml: &str, own: impl Fn(&str, &Request) -> bool) {
    let (template, alice) = (template(yaml), alice());
    let (rendered, granted) = (Cell::new(0), Cell::new(0));
    let cases_in_all = cases_in_all();
    // Each choice of a strategy has a generator of its own: with the default one making these costs more than all else.
    let rng_algorithm = RngAlgorithm::XorShift;
    let config =
        Config { cases: cases_in_all, failure_persistence: None, rng_algorithm, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let cases = (argument(name), proptest::collection::vec(twist(), 8));
    let outcome = runner.run(&cases, |(argument, twists)| {
        let number = argument.parse::<i64>().ok().filter(|_| name == "list-some");
        let given = number.map_or_else(|| json!(argument), |number| json!(number));
        let Ok(session) = render(&template, &alice, given) else { return Ok(()) };
        rendered.set(rendered.get() + 1);
        prop_assert!(session.policy.chars().count() <= template.worst_case_characters());
        let policy = Policy::read(&session.policy);
        for honest in requests(name, &argument) {
            prop_assert!(grants(&policy, &honest), "{argument:?}: {honest:?} is not granted");
            granted.set(granted.get() + 1);
            for twist in &twists {
                let request = twist.apply(&honest);
                let in_time = request.context["aws:CurrentTime"][0].as_str() < "2026-11-21T09:35:00Z";
                let is_open = !has(&policy, "Deny", &request);
                prop_assert!(
                    !is_open || in_time && own(&argument, &request),
                    "{argument:?}: {request:?} is not denied by {}",
                    session.policy
                );
            }
        }
        Ok(())
    });
    outcome.unwrap();
    // Else the property would hold of nothing.
    assert!(
        rendered.get() > cases_in_all / 4 && granted.get() >= rendered.get(),
        "{name}: {}",
        rendered.get()
    );
}

/// How many renderings of each template: `DEPUTIZE_RENDERINGS`, or as many as every run can afford.
fn cases_in_all() -> u32 {
    std::env::var("DEPUTIZE_RENDERINGS").map_or(CASES, |count| count.parse().unwrap())
}

/// What an honest server asks for with this argument.
fn requests(name: &str, argument: &str) -> Vec<Request> {
    let request = |action: &str, resource: String, key: Option<(&str, String)>| {
        let time = ("aws:CurrentTime".to_owned(), vec!["2026-11-21T09:30:01Z".to_owned()]);
        let account = ("aws:ResourceAccount".to_owned(), vec![ACCOUNT.to_owned()]);
        let key = key.map(|(key, value)| (key.to_owned(), vec![value]));
        Request {
            action: action.into(),
            resource,
            context: BTreeMap::from_iter([time, account].into_iter().chain(key)),
        }
    };
    match name {
        "restart-instance" => {
            vec![request("ec2:RebootInstances", arn("ec2", &format!("instance/{argument}")), None)]
        }
        "read-reports" => vec![
            request("s3:GetObject", format!("arn:aws:s3:::acme-reports/published/{argument}q3.pdf"), None),
            request(
                "s3:ListBucket",
                "arn:aws:s3:::acme-reports".into(),
                Some(("s3:prefix", format!("published/{argument}"))),
            ),
        ],
        "list-some" => vec![request(
            "s3:ListBucket",
            "arn:aws:s3:::acme-reports".into(),
            Some(("s3:max-keys", argument.to_owned())),
        )],
        "read-bucket" => vec![request("s3:GetObject", format!("arn:aws:s3:::acme-{argument}/q3.pdf"), None)],
        "query-orders" => vec![request(
            "dynamodb:Query",
            arn("dynamodb", "table/orders"),
            Some(("dynamodb:LeadingKeys", argument.to_owned())),
        )],
        "read-log-group" => {
            let group = argument.strip_suffix(":*").unwrap_or(argument);
            vec![request("logs:GetLogEvents", format!("{group}:log-stream:x"), None)]
        }
        _ => vec![request(
            "states:StartExecution",
            arn("states", &format!("stateMachine:agent-{argument}")),
            None,
        )],
    }
}

fn arn(service: &str, resource: &str) -> String {
    format!("arn:aws:{service}:eu-central-1:{ACCOUNT}:{resource}")
}

fn is_of_the_account(request: &Request) -> bool {
    request.context.get("aws:ResourceAccount").is_some_and(|account| *account == [ACCOUNT])
}

/// Arguments: many that fit, many that nearly do, some of anything.
fn argument(name: &str) -> BoxedStrategy<String> {
    let of = |alphabet: &'static str, lengths: std::ops::Range<usize>| {
        proptest::collection::vec(select(alphabet.chars().collect::<Vec<_>>()), lengths)
            .prop_map(String::from_iter)
    };
    let fitting = match name {
        "restart-instance" => of("0123456789abcdef", 17..18).prop_map(|id| format!("i-{id}")).boxed(),
        "read-reports" => proptest::collection::vec(of("abc-_.=0", 1..9), 1..5)
            .prop_map(|segments| format!("{}/", segments.join("/")))
            .boxed(),
        "list-some" => (-10..1100_i64).prop_map(|number| number.to_string()).boxed(),
        "read-bucket" => of("abc019-", 1..20).boxed(),
        "query-orders" => of("abcXYZ019#|_-./", 1..41).boxed(),
        "read-log-group" => (of("abc/_.-#", 1..60), select(vec!["", ":*"]))
            .prop_map(|(group, end)| arn("logs", &format!("log-group:{group}{end}")))
            .boxed(),
        "start-execution" => of("abcz019-", 0..50).prop_map(|name| format!("a{name}")).boxed(),
        _ => of("ab*?${}:%#;[] ", 1..21).boxed(),
    };
    let hostile = (fitting.clone(), select(HOSTILE.to_vec()), any::<prop::sample::Index>()).prop_map(
        |(fitting, hostile, at)| {
            let mut text: Vec<char> = fitting.chars().collect();
            let at = at.index(text.len() + 1);
            text.splice(at..at, hostile.chars());
            String::from_iter(text)
        },
    );
    let anything = proptest::collection::vec(any::<char>(), 0..30).prop_map(String::from_iter);
    prop_oneof![4 => fitting, 3 => hostile, 1 => select(HOSTILE.to_vec()).prop_map(str::to_owned), 1 => anything].boxed()
}

/// A change to an honest request.
#[derive(Debug, Clone)]
enum Twist {
    Action(&'static str),
    Resource(&'static str),
    Insert(prop::sample::Index, &'static str),
    Cut(prop::sample::Index),
    Replace(&'static str, &'static str),
    Time(&'static str),
    Key(&'static str, Vec<&'static str>),
    /// One value more.
    More(&'static str, &'static str),
    /// More text at the end of the value.
    Longer(&'static str, &'static str),
}

impl Twist {
    fn apply(&self, honest: &Request) -> Request {
        let mut request = honest.clone();
        match self {
            Self::Action(action) => request.action = (*action).into(),
            Self::Resource(resource) => request.resource = (*resource).into(),
            Self::Insert(at, text) => {
                let mut characters: Vec<char> = request.resource.chars().collect();
                let at = at.index(characters.len() + 1);
                characters.splice(at..at, text.chars());
                request.resource = String::from_iter(characters);
            }
            Self::Cut(at) => {
                request.resource = request.resource.chars().take(at.index(request.resource.len())).collect();
            }
            Self::Replace(from, to) => request.resource = request.resource.replace(from, to),
            Self::Time(time) => {
                request.context.insert("aws:CurrentTime".into(), vec![(*time).into()]);
            }
            Self::More(key, value) => {
                request.context.entry((*key).into()).or_default().push((*value).into());
            }
            Self::Longer(key, text) => {
                request
                    .context
                    .entry((*key).into())
                    .or_default()
                    .iter_mut()
                    .for_each(|had| had.push_str(text));
            }
            Self::Key(key, values) => {
                request.context.insert((*key).into(), values.iter().map(|&value| value.into()).collect());
            }
        }
        request
    }
}

fn twist() -> impl Strategy<Value = Twist> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        select(ACTIONS.to_vec()).prop_map(Twist::Action),
        select(RESOURCES.to_vec()).prop_map(Twist::Resource),
        (index(), select(vec!["*", "?", "a", "0", "/", "/../", ":", "${a}", "x"]))
            .prop_map(|(at, text)| Twist::Insert(at, text)),
        index().prop_map(Twist::Cut),
        select(vec![
            ("111122223333", "999988887777"),
            ("eu-central-1", "us-east-1"),
            ("arn:aws:", "arn:aws-cn:"),
            ("*", "anything"),
            ("?", "x"),
            ("${", "x"),
            ("published", "private"),
        ])
        .prop_map(|(from, to)| Twist::Replace(from, to)),
        select(vec![
            "2026-11-21T09:34:59Z",
            "2026-11-21T09:35:00Z",
            "2026-11-22T00:00:00Z",
            "2027-01-01T00:00:00Z"
        ])
        .prop_map(Twist::Time),
        (
            select(vec!["s3:prefix", "dynamodb:LeadingKeys"]),
            select(vec![vec![], vec!["*"], vec!["published/"], vec![""], vec!["cus_1", "cus_2"]])
        )
            .prop_map(|(key, values)| Twist::Key(key, values)),
        select(vec!["cus_2", "", "*"]).prop_map(|value| Twist::More("dynamodb:LeadingKeys", value)),
        select(vec!["2026/", "*", "x", "../"]).prop_map(|text| Twist::Longer("s3:prefix", text)),
        select(vec![vec![], vec!["-6"], vec!["0"], vec!["500"], vec!["1001"]])
            .prop_map(|values| Twist::Key("s3:max-keys", values)),
        select(vec![vec![], vec!["999988887777"], vec!["*"], vec![""]])
            .prop_map(|values| Twist::Key("aws:ResourceAccount", values)),
    ]
}

/// Buckets have no account in their ARNs, and anybody may own one of any name.
const READ_BUCKET: &str = r#"
name: read-bucket
description: Reads the one bucket that the call names
match: { server: https://reports.example.com/mcp, tool: read_bucket, tenant: acme }
params:
  bucket: { from: { argument: /bucket }, type: pattern, pattern: "^[a-z0-9-]+$", max_length: 40 }
aws:
  partition: aws
  account: "111122223333"
  region: eu-central-1
  role_arn: arn:aws:iam::111122223333:role/deputize/read-bucket
  window_seconds: 300
statements:
  - actions: [s3:GetObject]
    resources:
      - service: s3
        parts: [{ literal: acme- }, { param: bucket }, { literal: / }, wildcard]
ceiling:
  actions: [s3:GetObject]
  resources: ["arn:aws:s3:::acme-*/*"]
"#;
/// So many at once, and no more.
const LIST_SOME: &str = r#"
name: list-some
description: Lists as many reports as the call says
match: { server: https://reports.example.com/mcp, tool: list_reports, tenant: acme }
params:
  most: { from: { argument: /most }, type: integer, minimum: -5, maximum: 1000 }
aws:
  partition: aws
  account: "111122223333"
  region: eu-central-1
  role_arn: arn:aws:iam::111122223333:role/deputize/list-reports
  window_seconds: 300
statements:
  - actions: [s3:ListBucket]
    resources:
      - service: s3
        parts: [{ literal: acme-reports }]
    conditions:
      - operator: NumericLessThanEquals
        key: s3:max-keys
        values: [[{ param: most }]]
ceiling:
  actions: [s3:ListBucket]
  resources: ["arn:aws:s3:::acme-reports"]
"#;
const ACCOUNT: &str = "111122223333";
const HOSTILE: &[&str] = &[
    "*",
    "?",
    "$",
    "${",
    "${*}",
    "${aws:username}",
    "${aws:PrincipalTag/x}",
    "\"",
    "\\",
    "\n",
    "\r\n",
    "\u{0}",
    "\u{7f}",
    "\u{202e}",
    "\u{200b}",
    "\u{430}",
    "\u{ff0a}",
    "\u{ff0f}",
    "../",
    "/",
    "//",
    ":",
    "i-*",
    "\"]},{\"Effect\":\"Allow\"",
    "arn:aws:s3:::*",
    "arn:aws:ec2:us-east-1:999988887777:instance/*",
    "%2f",
    "%2e%2e/",
    " ",
];
const ACTIONS: &[&str] = &[
    "ec2:TerminateInstances",
    "ec2:RebootInstances",
    "EC2:REBOOTINSTANCES",
    "s3:GetObject",
    "s3:PutObject",
    "s3:ListBucket",
    "s3:DeleteObject",
    "dynamodb:Scan",
    "dynamodb:Query",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "logs:GetLogEvents",
    "logs:DeleteLogGroup",
    "states:StartExecution",
    "states:StopExecution",
    "sts:AssumeRole",
    "iam:PassRole",
    "x:y",
];
const RESOURCES: &[&str] = &[
    "*",
    "",
    "arn:aws:s3:::acme-reports",
    "arn:aws:s3:::acme-reports/private/x",
    "arn:aws:s3:::other/published/a/",
    "arn:aws:ec2:eu-central-1:111122223333:instance/i-ffffffffffffffff0",
    "arn:aws:dynamodb:eu-central-1:111122223333:table/orders/index/x",
    "arn:aws:logs:eu-central-1:111122223333:log-group:/other:log-stream:x",
    "arn:aws:states:eu-central-1:111122223333:stateMachine:agent-other",
];
const CASES: u32 = 8000;
