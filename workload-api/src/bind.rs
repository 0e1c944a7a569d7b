//! The socket's place in the file system: nobody but us and root may put another in its stead.

use rustix::process::geteuid;
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};
use tokio::net::UnixListener;

use crate::peer::demand_credentials;

/// Why there is no socket at a path.
#[derive(Debug, thiserror::Error)]
pub enum CannotBind {
    /// The path itself will not do.
    #[error("{path}: {why}")]
    Path {
        /// Where.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: &'static str,
    },
    /// The kernel says no.
    #[error("{path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
}

/// Listens at a path. Any process may connect: the kernel says who it is. The socket that an ended server left there is
/// replaced.
///
/// # Errors
/// [`CannotBind`] if the path is relative, too long, no socket, or a symbolic link or through one; if a server answers
/// there; if others may write to its folder or to one above it.
pub fn bind(path: &Path) -> Result<UnixListener, CannotBind> {
    let refuse = |why| CannotBind::Path { path: path.to_owned(), why };
    let io = |error| CannotBind::Io { path: path.to_owned(), error };
    if !path.is_absolute() {
        return Err(refuse("name the socket by its absolute path"));
    }
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(refuse("a socket's path has at most 107 bytes: choose a shorter one"));
    }
    let folder = path.parent().ok_or_else(|| refuse("this is no path of a file"))?;
    check_folder(folder)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
        Ok(found) if found.file_type().is_symlink() => {
            return Err(refuse("a symbolic link is here: remove it"));
        }
        Ok(found) if !found.file_type().is_socket() => {
            return Err(refuse("something that is no socket is here"));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(refuse("another server answers here: stop it, or choose another path")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(io)?;
            }
            Err(error) => return Err(io(error)),
        },
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    demand_credentials(&listener).map_err(io)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(io)?;
    Ok(listener)
}

/// Whoever may write to the folder could answer in our stead, and hand out identities of their own making.
fn check_folder(folder: &Path) -> Result<(), CannotBind> {
    let refuse = |why| CannotBind::Path { path: folder.to_owned(), why };
    let io = |error| CannotBind::Io { path: folder.to_owned(), error };
    // Whoever may change a link leads clients elsewhere, whoever owns the folder that it leads to now.
    if folder.canonicalize().map_err(io)? != folder {
        return Err(refuse("this path goes through a symbolic link or `..`: name the folder itself"));
    }
    let found = fs::metadata(folder).map_err(io)?;
    if found.mode() & 0o022 != 0 {
        return Err(refuse("others may write to this folder: chmod go-w it, or choose another"));
    }
    for ancestor in folder.ancestors() {
        let found = fs::metadata(ancestor).map_err(io)?;
        if ![0, geteuid().as_raw()].contains(&found.uid()) {
            return Err(refuse("this folder, or one above it, belongs to another user"));
        }
        // In a sticky folder nobody renames what is another's.
        if found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0 {
            return Err(refuse("others may write to a folder above this one: choose another"));
        }
    }
    Ok(())
}

/// `sun_path` less its terminating zero (unix(7)).
const MAX_PATH_BYTES: usize = 107;
/// Whoever may connect must be able to write.
const SOCKET_MODE: u32 = 0o777;

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of our own, and a path in it.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("api.sock");
        (folder, path)
    }

    fn refusal(path: &Path) -> String {
        bind(path).unwrap_err().to_string()
    }

    #[tokio::test]
    async fn anybody_may_connect() {
        let (_folder, path) = folder();
        let listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o777);
        let (connected, accepted) = tokio::join!(tokio::net::UnixStream::connect(&path), listener.accept());
        connected.unwrap();
        accepted.unwrap();
    }

    #[tokio::test]
    async fn a_dead_servers_socket_is_replaced_and_a_live_ones_is_not() {
        let (_folder, path) = folder();
        let live = bind(&path).unwrap();
        assert!(refusal(&path).contains("another server answers"));
        drop(live);
        assert!(path.exists());
        bind(&path).unwrap();
    }

    #[tokio::test]
    async fn what_stands_there_is_left_alone() {
        let (folder, path) = folder();
        fs::write(folder.path().join("elsewhere"), "kept").unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(refusal(&path).contains("symbolic link"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &path).unwrap();
        assert!(refusal(&path).contains("symbolic link"), "even one that leads nowhere");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "kept").unwrap();
        assert!(refusal(&path).contains("no socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }

    #[tokio::test]
    async fn nobody_else_may_write_to_the_folder() {
        let (folder, path) = folder();
        for mode in [0o775, 0o757, 0o777, 0o1777] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert!(refusal(&path).contains("others may write"), "{mode:o}");
        }
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).unwrap();
        for mode in [0o777, 0o775, 0o757] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert!(refusal(&inner.join("api.sock")).contains("above this one"), "{mode:o}");
        }
        assert!(!path.exists());
        for mode in [0o1777, 0o1775, 0o755] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            bind(&inner.join("api.sock")).unwrap();
        }
    }

    #[tokio::test]
    async fn no_link_leads_to_the_folder() {
        let (folder, _) = folder();
        fs::create_dir_all(folder.path().join("real/inner")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("real"), folder.path().join("link")).unwrap();
        for through in ["link/api.sock", "link/inner/api.sock", "real/inner/../api.sock", "link/../api.sock"]
        {
            assert!(
                refusal(&folder.path().join(through)).contains("goes through a symbolic link"),
                "{through}"
            );
        }
        bind(&folder.path().join("real//inner/./api.sock")).unwrap();
    }

    #[tokio::test]
    async fn a_path_is_absolute_and_fits() {
        assert!(refusal(Path::new("api.sock")).contains("absolute"));
        let (folder, _) = folder();
        let long = folder.path().join("x".repeat(MAX_PATH_BYTES));
        assert!(refusal(&long).contains("at most 107"));
        assert!(matches!(bind(&folder.path().join("none/api.sock")), Err(CannotBind::Io { .. })));
    }
}
