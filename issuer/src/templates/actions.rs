//! What is known of AWS actions. IAM compares their names without regard to case, and so does this.

/// One action.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) name: &'static str,
    /// How resources of it begin, after the account; empty where it knows no resources.
    pub(super) resources: &'static [&'static str],
}

/// What is known of an action.
pub(super) fn known(action: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(action))
}

/// Why no template may name an action: it hands out other rights than those that were decided.
pub(super) fn why_forbidden(action: &str) -> Option<&'static str> {
    let action = action.to_ascii_lowercase();
    let (service, name) = action.split_once(':').unwrap_or((&action, ""));
    if let Some((_, reason)) = FORBIDDEN_SERVICES.iter().find(|(forbidden, _)| *forbidden == service) {
        return Some(reason);
    }
    let is_forbidden = FORBIDDEN.iter().any(|forbidden| forbidden.eq_ignore_ascii_case(&action));
    // Whatever the service calls its credentials: what was not thought of here.
    let vends =
        ["gettemporary", "getfederat", "assumerole", "getauthorizationtoken", "getclustercredentials"];
    (is_forbidden || vends.iter().any(|vending| name.starts_with(vending)))
        .then_some("it hands out credentials")
}

impl Known {
    /// Whether an Allow or a Deny can name what it acts on.
    pub(super) fn has_resources(&self) -> bool {
        !self.resources.is_empty()
    }
}

/// Actions that templates use most; what is not here may be named, and `lint` says so.
const KNOWN: &[Known] = &[
    of("ec2:RebootInstances", &["instance/"]),
    of("ec2:StartInstances", &["instance/"]),
    of("ec2:StopInstances", &["instance/"]),
    of("ec2:TerminateInstances", &["instance/"]),
    of("ec2:GetConsoleOutput", &["instance/"]),
    of("ec2:DescribeInstances", &[]),
    of("ec2:DescribeInstanceStatus", &[]),
    of("s3:GetObject", ANY),
    of("s3:GetObjectVersion", ANY),
    of("s3:GetObjectTagging", ANY),
    of("s3:PutObject", ANY),
    of("s3:PutObjectTagging", ANY),
    of("s3:DeleteObject", ANY),
    of("s3:AbortMultipartUpload", ANY),
    of("s3:ListBucket", ANY),
    of("s3:ListBucketVersions", ANY),
    of("s3:GetBucketLocation", ANY),
    of("s3:ListAllMyBuckets", &[]),
    of("dynamodb:GetItem", &["table/"]),
    of("dynamodb:BatchGetItem", &["table/"]),
    of("dynamodb:Query", &["table/"]),
    of("dynamodb:Scan", &["table/"]),
    of("dynamodb:PutItem", &["table/"]),
    of("dynamodb:UpdateItem", &["table/"]),
    of("dynamodb:DeleteItem", &["table/"]),
    of("dynamodb:BatchWriteItem", &["table/"]),
    of("dynamodb:DescribeTable", &["table/"]),
    of("dynamodb:ListTables", &[]),
    of("logs:GetLogEvents", &["log-group:"]),
    of("logs:FilterLogEvents", &["log-group:"]),
    of("logs:DescribeLogStreams", &["log-group:"]),
    of("logs:DescribeLogGroups", &["log-group:"]),
    of("logs:StartQuery", &["log-group:"]),
    of("logs:GetQueryResults", &[]),
    of("logs:StopQuery", &[]),
    of("states:StartExecution", &["stateMachine:"]),
    of("states:StartSyncExecution", &["stateMachine:"]),
    of("states:DescribeStateMachine", &["stateMachine:"]),
    of("states:ListExecutions", &["stateMachine:"]),
    of("states:DescribeExecution", &["execution:"]),
    of("states:StopExecution", &["execution:"]),
    of("states:ListStateMachines", &[]),
    of("kms:Decrypt", &["key/"]),
    of("kms:GenerateDataKey", &["key/"]),
    of("lambda:InvokeFunction", &["function:"]),
    of("sqs:SendMessage", ANY),
    of("sns:Publish", ANY),
    of("events:PutEvents", &["event-bus/"]),
    of("ssm:GetParameter", &["parameter/"]),
    of("secretsmanager:GetSecretValue", &["secret:"]),
];

const fn of(name: &'static str, resources: &'static [&'static str]) -> Known {
    Known { name, resources }
}

/// Resources that begin with a name of the owner's choice: buckets, queues, topics.
const ANY: &[&str] = &[""];

const FORBIDDEN_SERVICES: &[(&str, &str)] = &[
    ("sts", "it makes other sessions, which no window ends"),
    ("iam", "it changes or hands on rights (`iam:PassRole` among them)"),
    ("organizations", "it changes the rights of whole accounts"),
    ("account", "it changes whole accounts"),
    ("sso", "it hands out credentials"),
    ("sso-oauth", "it hands out credentials"),
    ("identitystore", "it changes who people are"),
    ("cognito-identity", "it hands out credentials"),
    ("rolesanywhere", "it hands out credentials"),
    ("eks-auth", "it hands out credentials"),
    ("rds-db", "it opens sessions that no window ends"),
    ("signin", "it opens sessions that no window ends"),
];

/// Single actions that hand out credentials, or open sessions that outlive the window.
const FORBIDDEN: &[&str] = &[
    "codeartifact:GetAuthorizationToken",
    "connect:GetFederationToken",
    "ec2-instance-connect:OpenTunnel",
    "ec2-instance-connect:SendSerialConsoleSSHPublicKey",
    "ec2-instance-connect:SendSSHPublicKey",
    "ec2:GetPasswordData",
    "ecr-public:GetAuthorizationToken",
    "ecr:GetAuthorizationToken",
    "gamelift:GetComputeAuthToken",
    "gamelift:RequestUploadCredentials",
    "iot:AssumeRoleWithCertificate",
    "lakeformation:GetDataAccess",
    "lightsail:DownloadDefaultKeyPair",
    "lightsail:GetInstanceAccessDetails",
    "lightsail:GetRelationalDatabaseMasterUserPassword",
    "redshift-serverless:GetCredentials",
    "redshift:GetClusterCredentials",
    "redshift:GetClusterCredentialsWithIAM",
    "s3:GetDataAccess",
    "ssm:ResumeSession",
    "ssm:StartSession",
    "storagegateway:DescribeChapCredentials",
];
