//! `deputize keys publish`: discovery document and key set as files, for S3, CloudFront or any other web server.

use deputize_call::keys::KeySet;
use deputize_issuer::clock::fill_random;
use serde::Serialize;
use serde_json::Value;
use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    now_seconds, unusable,
    web_identity::{Shown, WebIdentitySet},
};
use crate::{
    backends::{key_files::make_private_folder, web_identity_keys::WebIdentityKeys},
    commands::{
        data::{DataArgs, DataFolder},
        exit::{CommandError, CommandResult, Exit},
        moment,
        output::{Columns, Output, clean},
    },
    config::aws_issuer::{Taker, check_issuer},
    http::web_identity::{DISCOVERY_PATH, JWKS_PATH, discovery_document, key_set_document},
};

/// Write what AWS reads of our identity as static files: discovery document and public keys
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  deputize keys publish --to public
  deputize keys publish --to public --issuer https://id.example.com/deputize

For brokers that AWS cannot reach: put the files below the issuer URL, on S3 with CloudFront or any web server that
speaks https, both as application/json. The first keys are made if there are none. Publish again after each
`deputize keys rotate`, and a day after the new keys began to sign.
The key set that lies in DIR already is looked at first: a key that AWS may still need is not dropped.
Exit code 3: it would be dropped, or DIR holds another issuer's files (--force).")]
pub struct Args {
    /// Folder that is written: `.well-known/openid-configuration` and `jwks`
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Issuer URL under which the files will stand [default: the configured one, which this must be]
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Drop keys that may still be needed, and overwrite another issuer's files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Serialize)]
struct Answer {
    issuer: String,
    /// In the order in which they are to be uploaded.
    upload: Vec<Upload>,
    keys: Vec<Shown>,
    /// Until when the upload has to be done for the announced keys to sign as planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_before: Option<String>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Upload {
    file: PathBuf,
    url: String,
    content_type: &'static str,
}

/// Runs it.
///
/// # Errors
/// If the issuer is not the configured one, a key would be dropped too early, or the folder cannot be written.
pub(super) fn run(args: &Args, output: Output) -> CommandResult {
    let folder = args.data.find()?;
    let issuer = issuer(args, &folder)?;
    let now_seconds = now_seconds();
    make_private_folder(&folder.folder).map_err(unusable)?;
    WebIdentityKeys::open(&folder.folder, now_seconds).map_err(unusable)?;
    let set = WebIdentitySet::read(&folder.folder, now_seconds)?;
    let before = PublishedBefore::read(&args.to)?;
    if !args.force {
        before.check(&issuer, &set)?;
    }
    // The keys first: a discovery document that is there points to keys that are.
    let documents =
        [(JWKS_PATH, key_set_document(&set.published)), (DISCOVERY_PATH, discovery_document(&issuer))];
    let mut upload = Vec::new();
    for (path, document) in documents {
        let file = args.to.join(path);
        write(&file, &document).map_err(|error| {
            CommandError::failure(format!("{}: {error}", file.display()), "give a folder that can be written")
        })?;
        upload.push(Upload { url: format!("{issuer}/{path}"), file, content_type: "application/json" });
    }
    let answer = Answer::of(issuer, upload, set, (&before, now_seconds));
    output.show(&answer, || answer.to_text())?;
    Ok(Exit::Ok)
}

/// The configured issuer; another one would make files that no token fits.
fn issuer(args: &Args, folder: &DataFolder) -> Result<String, CommandError> {
    match (&args.issuer, &folder.web_identity_issuer) {
        (None, None) => Err(CommandError::usage(
            "no issuer: the configuration was not given",
            "give --config FILE, or --issuer URL with --data DIR",
        )),
        (Some(given), Some(configured)) if given != configured => Err(CommandError::usage(
            format!("--issuer {given:?} is not the configured one, {configured:?}"),
            "tokens say what is configured: correct `aws.web_identity.issuer`, or leave --issuer out",
        )),
        (Some(issuer), _) | (None, Some(issuer)) => {
            check_issuer(issuer, Taker::Aws).map_err(|problem| {
                CommandError::usage(
                    format!("the issuer {issuer:?} {problem}"),
                    "state the URL below which the files will be: `https://id.example.com/deputize`",
                )
            })?;
            Ok(issuer.clone())
        }
    }
}

/// What lies in the folder already.
struct PublishedBefore {
    issuer: Option<String>,
    kids: Vec<String>,
}

impl PublishedBefore {
    fn read(folder: &Path) -> Result<Self, CommandError> {
        let discovery = read_json(&folder.join(DISCOVERY_PATH))?;
        let issuer = discovery.map(|document| text_of(&document, "issuer").unwrap_or_default().to_owned());
        let kids = match read_json(&folder.join(JWKS_PATH))? {
            None => Vec::new(),
            Some(document) => kids_of(&document),
        };
        Ok(Self { issuer, kids })
    }

    fn check(&self, issuer: &str, set: &WebIdentitySet) -> Result<(), CommandError> {
        let refused = |message: String| {
            CommandError::new(Exit::Denied, message, "give another folder, or --force if you are sure")
        };
        if let Some(other) = self.issuer.as_deref().filter(|other| *other != issuer) {
            return Err(refused(format!("the folder holds the files of another issuer, {other:?}")));
        }
        for kid in &self.kids {
            let known = set.find(kid);
            if known.is_none() {
                return Err(refused(format!("the key {kid:?} that is published is not of this data folder")));
            }
        }
        Ok(())
    }
}

fn kids_of(document: &Value) -> Vec<String> {
    let keys = document.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    keys.iter().filter_map(|key| text_of(key, "kid")).map(str::to_owned).collect()
}

fn text_of<'d>(document: &'d Value, name: &str) -> Option<&'d str> {
    document.get(name).and_then(Value::as_str)
}

fn read_json(file: &Path) -> Result<Option<Value>, CommandError> {
    let cannot = |error: &dyn std::fmt::Display| {
        CommandError::failure(
            format!("{}: {error}", file.display()),
            "correct or remove it: what is published has to be known first",
        )
    };
    match fs::read(file) {
        Ok(bytes) if bytes.len() > MAX_DOCUMENT_BYTES => Err(cannot(&"larger than 256 KiB")),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| cannot(&error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot(&error)),
    }
}

/// Written whole beside its place, then put there: whoever reads meanwhile gets the old one or the new one.
fn write(file: &Path, document: &Value) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut random = [0; 8];
    fill_random(&mut random).map_err(|_| std::io::Error::other("the system gives no randomness"))?;
    let draft = folder.join(format!(".draft-{:016x}", u64::from_be_bytes(random)));
    let written = (|| {
        let mut draft_file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
        draft_file.write_all(format!("{document:#}\n").as_bytes())?;
        draft_file.sync_all()?;
        fs::rename(&draft, file)?;
        fs::File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // What could not be put in its place is no use; the error tells of the cause.
        let _ = fs::remove_file(&draft);
    }
    written
}

impl Answer {
    fn of(
        issuer: String,
        upload: Vec<Upload>,
        set: WebIdentitySet,
        (before, now_seconds): (&PublishedBefore, u64),
    ) -> Self {
        let announced: Vec<(&Shown, u64)> =
            set.keys.iter().filter_map(|key| Some((key, key.publish_before_seconds?))).collect();
        // Once a set with the key is out, nothing is to be done for it.
        let due = announced.iter().filter(|(key, _)| !before.kids.contains(&key.kid));
        let warnings = due
            .clone()
            .filter(|(_, before)| *before < now_seconds)
            .map(|(key, _)| {
                format!(
                    "{}: it signs from {} on, less than a day from now: AWS may still hold the older set then, and \
                     give no sessions until it reads this one",
                    key.kid,
                    key.signs_from.as_deref().unwrap_or_default()
                )
            })
            .collect();
        let upload_before = due.map(|(_, before)| *before).min().map(moment::format_seconds);
        let keys = set.keys.iter().filter(|key| is_in(&set.published, &key.kid)).cloned().collect();
        Self { issuer, upload, keys, upload_before, warnings }
    }

    fn to_text(&self) -> String {
        let mut text = format!("issuer {}\n\nupload in this order:\n", clean(&self.issuer));
        let mut files = Columns::new(&["FILE", "URL", "CONTENT TYPE"]);
        for upload in &self.upload {
            files.row(&[&upload.file.display().to_string(), &upload.url, upload.content_type]);
        }
        let mut keys = Columns::new(&["STATE", "ALG", "KID"]);
        for key in &self.keys {
            keys.row(&[&key.says(), key.alg, &key.kid]);
        }
        text.push_str(&format!("{files}\n{keys}"));
        for warning in &self.warnings {
            text.push_str(&format!("! {}\n", clean(warning)));
        }
        if let Some(before) = &self.upload_before {
            text.push_str(&format!(" next: upload before {before}: a day before the new keys sign\n"));
        }
        text
    }
}

fn is_in(set: &KeySet, kid: &str) -> bool {
    set.iter().any(|key| key.kid() == Some(kid))
}

const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
