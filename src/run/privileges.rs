//! Giving up root: what only root can take is taken by then.
//!
//! Owns which user the broker becomes, and what is handed to that user before.
//! Never gets anything back: there is no way to become root again.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use nix::unistd::{Uid, User, initgroups, setgid, setuid};

use super::ServeError;
use crate::config::Config;
use crate::net::{Bound, Inode};

/// Who root becomes if there is such a user, and the configuration names none.
const DEFAULT_USER: &str = "rotamq";

/// Becomes the user that the configuration names, if the process is root's. The
/// files of `sockets` become that user's, and so does a data folder that is
/// still to be made. Whether it was root's, and is not any more.
///
/// # Errors
/// There is no such user, or the system does not let us.
pub(super) fn give_up(config: &Config, sockets: &[Bound]) -> Result<bool, ServeError> {
    if !Uid::effective().is_root() {
        return Ok(false);
    }
    let name = config.user.as_deref();
    if name == Some("root") {
        return Ok(false);
    }
    let wanted = name.unwrap_or(DEFAULT_USER);
    let found = User::from_name(wanted).map_err(|error| {
        ServeError(format!(
            "cannot look up the user {wanted}: {}",
            error.desc()
        ))
    })?;
    let Some(user) = found else {
        let make = format!("useradd --system {wanted}");
        if name.is_some() {
            return Err(ServeError(format!(
                "there is no user {wanted}: make one, as by `{make}`, or set user to one that \
                 exists"
            )));
        }
        tracing::warn!(
            "this broker runs as root, which it does not need: make a user for it, as by \
             `{make}`, or say user = \"root\" if that is meant"
        );
        return Ok(false);
    };
    if user.uid.is_root() {
        return Ok(false);
    }
    let paths = sockets.iter().filter_map(Bound::path);
    for path in paths {
        let socket = Inode::of_socket(path);
        socket
            .and_then(|socket| hand_over(&socket, &user))
            .map_err(|error| refused(path, &user, &error))?;
    }
    let data = &config.store.data;
    if !config.store.ephemeral {
        make_folder(data, &user).map_err(|error| refused(data, &user, &error))?;
    }
    become_user(&user)
        .map_err(|error| ServeError(format!("cannot become the user {wanted}: {error}")))?;
    if Uid::effective().is_root() || setuid(Uid::from_raw(0)).is_ok() {
        return Err(ServeError(format!("became {wanted}, and still is root")));
    }
    tracing::info!(user = wanted, "gave up root");
    Ok(true)
}

fn refused(path: &Path, user: &User, error: &io::Error) -> ServeError {
    let (shown, name) = (path.display(), &user.name);
    ServeError(format!("cannot hand {shown} to the user {name}: {error}"))
}

fn hand_over(inode: &Inode, user: &User) -> io::Result<()> {
    inode.set_owner(user.uid.as_raw(), user.gid.as_raw())
}

/// A folder that is there already stays whose it is: its owner decides. In a
/// folder that is not root's, the user makes it, or cannot: where others may
/// put links, root does nothing.
fn make_folder(path: &Path, user: &User) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or(Path::new("."));
    let is_ours = |folder: fs::Metadata| folder.uid() == 0 && folder.mode() & 0o022 == 0;
    if !fs::metadata(above).is_ok_and(is_ours) {
        return Ok(());
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => hand_over(&Inode::of_folder(path)?, user),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Groups first: afterwards we may not. The C library changes all threads.
fn become_user(user: &User) -> nix::Result<()> {
    let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| nix::Error::EINVAL)?;
    initgroups(&name, user.gid)?;
    setgid(user.gid)?;
    setuid(user.uid)
}
