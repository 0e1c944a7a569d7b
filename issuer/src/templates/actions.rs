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
    let is_of = |list: &[&str]| list.iter().any(|forbidden| forbidden.eq_ignore_ascii_case(&action));
    // Whatever the service, by how AWS names such actions: what was not thought of here.
    let vends = ["assume", "getfederat", "gettemporary"].iter().any(|start| name.starts_with(start))
        || ["credential", "accesskey", "password", "presigned", "embedurl"]
            .iter()
            .any(|word| name.contains(word))
        || name.ends_with("token");
    if vends || is_of(VENDS) {
        return Some("it hands out credentials, or opens a session that no window ends");
    }
    let hands_on = ["acl", "grant", "grants", "permission", "permissions", "policies", "policy"];
    (hands_on.iter().any(|end| name.ends_with(end)) || is_of(HANDS_ON))
        .then_some("it hands on rights, or acts with those of another role")
}

impl Known {
    /// Whether an Allow or a Deny can name what it acts on.
    pub(super) fn has_resources(&self) -> bool {
        !self.resources.is_empty()
    }
}

/// Actions that templates use most. Another one is refused, unless the template states it as `unknown_actions`.
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
    of("cloudwatch:GetMetricData", &[]),
    of("cloudwatch:GetMetricStatistics", &[]),
    of("cloudwatch:ListMetrics", &[]),
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
const VENDS: &[&str] = &[
    "airflow:CreateCliToken",
    "airflow:CreateWebLoginToken",
    "appstream:CreateStreamingURL",
    "codeartifact:GetAuthorizationToken",
    "connect:GetFederationToken",
    "datazone:GetEnvironmentCredentials",
    "deadline:AssumeQueueRoleForWorker",
    "dsql:DbConnect",
    "dsql:DbConnectAdmin",
    "ec2-instance-connect:OpenTunnel",
    "ec2-instance-connect:SendSerialConsoleSSHPublicKey",
    "ec2-instance-connect:SendSSHPublicKey",
    "ec2:GetPasswordData",
    "ecr-public:GetAuthorizationToken",
    "ecr:GetAuthorizationToken",
    "ecs:ExecuteCommand",
    "elasticache:Connect",
    "elasticmapreduce:GetClusterSessionCredentials",
    "gamelift:GetComputeAuthToken",
    "gamelift:RequestUploadCredentials",
    "iot:AssumeRoleWithCertificate",
    "iotsecuredtunneling:OpenTunnel",
    "lakeformation:GetDataAccess",
    "lightsail:DownloadDefaultKeyPair",
    "lightsail:GetInstanceAccessDetails",
    "lightsail:GetRelationalDatabaseMasterUserPassword",
    "memorydb:Connect",
    "redshift-serverless:GetCredentials",
    "redshift:GetClusterCredentials",
    "redshift:GetClusterCredentialsWithIAM",
    "s3:GetDataAccess",
    "s3express:CreateSession",
    "ssm:ResumeSession",
    "ssm:StartSession",
    "storagegateway:DescribeChapCredentials",
];

/// Single actions that give rights to others, or make code or commands run under a role that is not the session's.
const HANDS_ON: &[&str] = &[
    "cloudformation:CreateChangeSet",
    "cloudformation:CreateStack",
    "cloudformation:ExecuteChangeSet",
    "cloudformation:UpdateStack",
    "codebuild:StartBuild",
    "codebuild:StartBuildBatch",
    "codebuild:UpdateProject",
    "ec2:ModifyInstanceAttribute",
    "ecs:RunTask",
    "ecs:StartTask",
    "kms:CreateGrant",
    "lambda:AddPermission",
    "lambda:UpdateFunctionCode",
    "lambda:UpdateFunctionConfiguration",
    "s3:PutBucketPolicy",
    "ssm:CreateAssociation",
    "ssm:SendCommand",
    "ssm:StartAutomationExecution",
    "ssm:UpdateAssociation",
    "states:UpdateStateMachine",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_action_is_known_and_forbidden() {
        for known in KNOWN {
            assert_eq!(why_forbidden(known.name), None, "{}", known.name);
        }
        for forbidden in VENDS.iter().chain(HANDS_ON) {
            assert!(why_forbidden(&forbidden.to_uppercase()).is_some(), "{forbidden}");
        }
    }
}
