//! What is known of condition keys. IAM compares their names without regard to case, and so does this.

/// How many values a request can have for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    One,
    /// INVARIANT: no plain comparison is made with it. That would hold as soon as one of the values fits, and its
    /// negation, of which the Deny is made, would not: `[own, other]` would pass both.
    Several,
}

/// What is known of a key; `None` where it is nothing, so that nobody relies on a guess.
pub(super) fn values_of(key: &str) -> Option<Values> {
    let key = key.to_ascii_lowercase();
    let is = |known: &&str| known.eq_ignore_ascii_case(&key);
    if SEVERAL.iter().any(is) {
        return Some(Values::Several);
    }
    let begins = |start: &&str| {
        key.strip_prefix(start.to_ascii_lowercase().as_str()).is_some_and(|name| !name.is_empty())
    };
    (ONE.iter().any(is) || ONE_EACH.iter().any(begins)).then_some(Values::One)
}

/// Keys whose type is an array in the Service Authorization Reference.
const SEVERAL: &[&str] = &[
    "aws:CalledVia",
    "aws:PrincipalOrgPaths",
    "aws:PrincipalServiceNamesList",
    "aws:ResourceOrgPaths",
    "aws:SourceOrgPaths",
    "aws:TagKeys",
    "dynamodb:Attributes",
    "dynamodb:LeadingKeys",
    "events:detail-type",
    "events:source",
    "kms:EncryptionContextKeys",
    "kms:ResourceAliases",
    "s3:RequestObjectTagKeys",
];

/// Keys that a request has once.
const ONE: &[&str] = &[
    "aws:PrincipalAccount",
    "aws:PrincipalArn",
    "aws:PrincipalOrgID",
    "aws:RequestedRegion",
    "aws:ResourceOrgID",
    "aws:SecureTransport",
    "aws:SourceIdentity",
    "aws:SourceIp",
    "aws:SourceVpc",
    "aws:SourceVpce",
    "aws:ViaAWSService",
    "aws:VpcSourceIp",
    "cloudwatch:namespace",
    "dynamodb:EnclosingOperation",
    "dynamodb:ReturnConsumedCapacity",
    "dynamodb:ReturnValues",
    "dynamodb:Select",
    "ec2:AvailabilityZone",
    "ec2:InstanceID",
    "ec2:InstanceType",
    "ec2:Region",
    "ec2:Tenancy",
    "kms:CallerAccount",
    "kms:EncryptionAlgorithm",
    "kms:KeyOrigin",
    "kms:KeySpec",
    "kms:RequestAlias",
    "kms:ViaService",
    "s3:delimiter",
    "s3:max-keys",
    "s3:prefix",
    "s3:TlsVersion",
    "s3:VersionId",
    "s3:x-amz-acl",
    "s3:x-amz-server-side-encryption",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "s3:x-amz-storage-class",
    "secretsmanager:SecretId",
    "secretsmanager:VersionId",
    "secretsmanager:VersionStage",
    "sns:Endpoint",
    "sns:Protocol",
];

/// Beginnings of keys of which each has one value: what follows is the name of a tag or of a member.
const ONE_EACH: &[&str] = &[
    "aws:PrincipalTag/",
    "aws:RequestTag/",
    "aws:ResourceTag/",
    "ec2:ResourceTag/",
    "kms:EncryptionContext:",
    "s3:ExistingObjectTag/",
    "s3:RequestObjectTag/",
    "secretsmanager:ResourceTag/",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_value_or_several_and_the_docs_say_which() {
        let docs = include_str!("../../../docs/aws.md");
        let (_, rest) = docs.split_once("**Conditions.**").unwrap();
        let (conditions, _) = rest.split_once("**Ceiling.**").unwrap();
        let (one, several) = conditions.split_once("with several take").unwrap();
        for key in ONE.iter().chain(ONE_EACH) {
            assert!(one.contains(&format!("`{key}")), "{key}");
            assert!(!SEVERAL.iter().any(|several| several.eq_ignore_ascii_case(key)), "{key}");
        }
        for key in SEVERAL {
            assert!(several.contains(&format!("`{key}`")), "{key}");
            assert_eq!(values_of(&key.to_uppercase()), Some(Values::Several));
        }
        assert_eq!(values_of("AWS:resourcetag/team"), Some(Values::One));
        for unknown in ["aws:ResourceTag", "aws:ResourceTag/", "s3:prefix/", "s3:", ""] {
            assert_eq!(values_of(unknown), None, "{unknown}");
        }
    }
}
