//! Who may use the HTTP port: users with passwords, tokens, and browsers that are
//! logged in.
//!
//! Owns their file, `http-users.json` in the data folder. Neither passwords nor
//! tokens are kept, but hashes of them. Nobody is there at the first start: then
//! a token is made that is good for making the first admin, once.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use utoipa::ToSchema;

use super::guard::Who;
use super::to_the_end;
use crate::authentication::passwords::check_user;
use crate::authentication::stored::{Stored, hash_argon2id, sha256};
use crate::message::Time;

const FILE: &str = "http-users.json";
/// Thousands of users fit.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Users, and tokens.
const ENTRIES_MAX: usize = 10_000;
/// Browsers that are logged in; the one that was used longest ago gives way.
const LOGINS_MAX: usize = 10_000;
/// Of one user, so that nobody pushes others out.
const LOGINS_PER_USER_MAX: usize = 50;
/// Tokens that are lent to commands; they push out no browser, nor the reverse.
const LENT_MAX: usize = 1000;
pub(super) const NAME_BYTES_MAX: usize = 128;
const PASSWORD_CHARS_MIN: usize = 8;
const PASSWORD_BYTES_MAX: usize = 1024;
/// Passwords that are hashed at one time: each takes 20 ms, and 19 MiB.
const HASHES_MAX: usize = 2;
/// That wait for one of those.
const HASHES_WAITING_MAX: usize = 64;
/// How long a token holds that is lent to a command of this machine.
const LENT_FOR: Duration = Duration::from_secs(10 * 60);
/// How long the entry of a used login may be out of date.
const TOUCH_AFTER: Duration = Duration::from_secs(60);

/// What somebody may do; each may do what those before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Sees what there is, but no payloads.
    Viewer,
    /// Sees payloads, and changes what runs.
    Operator,
    /// Does everything.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        })
    }
}

/// What the file has.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    users: Vec<User>,
    tokens: Vec<Token>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    name: String,
    role: Role,
    // As a password file has it.
    password: String,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    id: String,
    name: String,
    role: Role,
    // Base64 of the hash: a token is random, so that nothing slower is needed.
    sha256: String,
    created_at_ms: u64,
    expires_at_ms: Option<u64>,
}

/// A user, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct UserView {
    pub name: String,
    pub role: Role,
}

/// A token, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TokenView {
    pub id: String,
    pub name: String,
    pub role: Role,
    pub created_at_ms: u64,
    /// null: never.
    pub expires_at_ms: Option<u64>,
}

/// A browser that is logged in, or a command that was lent a token.
struct Login {
    whose: Whose,
    until: Time,
    used: Time,
}

#[derive(PartialEq, Eq)]
enum Whose {
    /// With the hash of the password that was right then: with another one, its
    /// browsers have to log in again.
    User {
        name: String,
        password: String,
    },
    Lent,
}

impl Whose {
    /// Whether they give way to each other.
    fn is_kin(&self, other: &Whose) -> bool {
        match (self, other) {
            (Whose::User { name, .. }, Whose::User { name: other, .. }) => name == other,
            (Whose::Lent, Whose::Lent) => true,
            _ => false,
        }
    }
}

/// Those that there are.
pub(crate) struct Users {
    // `None`: nothing is kept.
    path: Option<PathBuf>,
    kept: Mutex<Kept>,
    // Held while the file is written: the last that is written is the last.
    writing: Arc<tokio::sync::Mutex<()>>,
    logins: Mutex<FxHashMap<[u8; 32], Login>>,
    // The hash of the token with which the first admin is made.
    setup: Mutex<Option<[u8; 32]>>,
    hashes: Arc<Semaphore>,
    // Those under way, and those that wait.
    hashes_asked: Arc<Semaphore>,
    // Somebody may be who it was no more.
    changed: watch::Sender<()>,
    login_expiry: Duration,
}

/// Leave to hash one password.
pub(crate) struct Turn {
    _turn: OwnedSemaphorePermit,
    _asked: OwnedSemaphorePermit,
}

/// Why something was not done: a sentence for who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UsersError {
    NotFound(String),
    Exists(String),
    Invalid(String),
    /// It does not fit what is there.
    Conflict(String),
    /// Somebody else has to be through first.
    Busy,
    Failed(String),
}

impl Users {
    /// Reads the file of a data folder; `None`: nothing is kept.
    ///
    /// # Errors
    /// The file cannot be read or is not what it should be; a sentence.
    pub fn open(folder: Option<&Path>, login_expiry: Duration) -> Result<Users, String> {
        let path = folder.map(|folder| folder.join(FILE));
        let kept = match &path {
            Some(path) => read(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?
                .unwrap_or_default(),
            None => Kept::default(),
        };
        Ok(Users {
            path,
            kept: Mutex::new(kept),
            writing: Arc::default(),
            logins: Mutex::default(),
            setup: Mutex::new(None),
            hashes: Arc::new(Semaphore::new(HASHES_MAX)),
            hashes_asked: Arc::new(Semaphore::new(HASHES_MAX + HASHES_WAITING_MAX)),
            changed: watch::Sender::new(()),
            login_expiry,
        })
    }

    /// A token for making the first admin, where nobody is there; the one that
    /// was made before is good for nothing any more.
    pub fn offer_setup(&self) -> Option<String> {
        if !self.kept.lock().users.is_empty() {
            return None;
        }
        let token = random_token().ok()?;
        *self.setup.lock() = Some(sha256(token.as_bytes()));
        Some(token)
    }

    /// Whether the first admin is still to be made.
    pub fn wants_setup(&self) -> bool {
        self.kept.lock().users.is_empty()
    }

    /// Waits until a password may be hashed. Who is gone before that waits no more.
    ///
    /// # Errors
    /// Too many wait.
    pub async fn turn(&self) -> Result<Turn, UsersError> {
        let asked = self.hashes_asked.clone().try_acquire_owned();
        let asked = asked.map_err(|_| UsersError::Busy)?;
        let turn = self.hashes.clone().acquire_owned().await;
        Ok(Turn {
            _turn: turn.map_err(|_| UsersError::Busy)?,
            _asked: asked,
        })
    }

    /// Whether that is the token for making the first admin.
    pub fn is_setup_token(&self, token: &str) -> bool {
        *self.setup.lock() == Some(sha256(token.as_bytes()))
    }

    /// Makes the first admin.
    ///
    /// # Errors
    /// It is not the token, or name and password are of no use.
    pub async fn set_up(
        self: &Arc<Self>,
        token: &str,
        name: &str,
        password: &str,
    ) -> Result<(), UsersError> {
        let wrong = || {
            let text = "this is not the token that was logged when the broker started, or it was \
                        used already";
            UsersError::Invalid(text.to_owned())
        };
        if !self.is_setup_token(token) {
            return Err(wrong());
        }
        let user = self.new_user(name, password, Role::Admin).await?;
        // Who mistypes may try again, and of two only one is first.
        self.change(move |kept| match kept.users.is_empty() {
            true => {
                kept.users.push(user);
                Ok(())
            }
            false => Err(wrong()),
        })
        .await
    }

    /// A user's password is right: what its browser shows from now on. To be run
    /// to its end, so that it can be counted if it fails.
    pub async fn log_in(
        &self,
        turn: Turn,
        name: &str,
        password: &str,
        now: Time,
    ) -> Option<(String, Role)> {
        let found = {
            let kept = self.kept.lock();
            let mut users = kept.users.iter();
            users.find(|user| user.name == name).cloned()
        };
        // Who is not there takes as long as who is.
        let stored = found.as_ref().map_or(NOBODY, |user| &user.password);
        let stored = Stored::parse(stored).ok()?;
        let is_right = hashed(turn, password, move |password| stored.matches(password));
        let user = found.filter(|_| password.len() <= PASSWORD_BYTES_MAX);
        let (true, Some(user)) = (is_right.await?, user) else {
            return None;
        };
        let whose = Whose::User {
            name: user.name,
            password: user.password,
        };
        // It may have been changed meanwhile.
        let role = self.role_of(&whose)?;
        let token = self.admit(whose, now, self.login_expiry)?;
        Some((token, role))
    }

    /// What who is logged in may do; `None`: it has to log in again.
    fn role_of(&self, whose: &Whose) -> Option<Role> {
        let Whose::User { name, password } = whose else {
            return None; // It is a token.
        };
        let kept = self.kept.lock();
        let user = kept.users.iter().find(|user| user.name == *name)?;
        (user.password == *password).then_some(user.role)
    }

    /// Tells when somebody may be who it was no more.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What a browser showed is good for nothing any more.
    pub fn log_out(&self, login: &str) {
        self.logins.lock().remove(&sha256(login.as_bytes()));
        self.changed.send_replace(());
    }

    /// A token of an admin for a command of this machine, which may read the data
    /// folder and thus everything.
    pub fn lend(&self, now: Time) -> Option<String> {
        self.admit(Whose::Lent, now, LENT_FOR)
    }

    fn admit(&self, whose: Whose, now: Time, lasts: Duration) -> Option<String> {
        let token = random_token().ok()?;
        let mut logins = self.logins.lock();
        logins.retain(|_, login| login.until > now);
        let is_lent = |whose: &Whose| *whose == Whose::Lent;
        let kin_max = match is_lent(&whose) {
            true => LENT_MAX,
            false => LOGINS_PER_USER_MAX,
        };
        make_room(&mut logins, kin_max, |other| other.is_kin(&whose));
        if !is_lent(&whose) {
            make_room(&mut logins, LOGINS_MAX, |other| !is_lent(other));
        }
        let login = Login {
            whose,
            until: now + lasts,
            used: now,
        };
        logins.insert(sha256(token.as_bytes()), login);
        Some(token)
    }

    /// Who shows this cookie, which is used by that.
    pub fn of_login(&self, login: &str, now: Time) -> Option<Who> {
        let who = self.still_of_login(login, now)?;
        if let Some(login) = (self.logins.lock()).get_mut(&sha256(login.as_bytes()))
            && now.since(login.used) >= TOUCH_AFTER
        {
            (login.used, login.until) = (now, now + self.login_expiry);
        }
        Some(who)
    }

    /// The same, of a cookie that was shown a while ago.
    pub fn still_of_login(&self, login: &str, now: Time) -> Option<Who> {
        let logins = self.logins.lock();
        let login = logins.get(&sha256(login.as_bytes()))?;
        let Whose::User { name, .. } = &login.whose else {
            return None; // It is a token.
        };
        let role = self.role_of(&login.whose).filter(|_| login.until > now)?;
        Some(Who {
            name: name.clone(),
            role,
        })
    }

    /// Who brings this token.
    pub fn of_token(&self, token: &str, now: Time) -> Option<Who> {
        let hash = sha256(token.as_bytes());
        if let Some(login) = self.logins.lock().get(&hash) {
            return (matches!(login.whose, Whose::Lent) && login.until > now).then(|| Who {
                name: "a command on this machine".into(),
                role: Role::Admin,
            });
        }
        let hash = crate::base64::encode(&hash);
        let now_ms = now.as_micros() / 1000;
        let kept = self.kept.lock();
        let mut tokens = kept.tokens.iter();
        let token = tokens.find(|token| token.sha256 == hash)?;
        let holds = token.expires_at_ms.is_none_or(|expires| expires > now_ms);
        holds.then(|| Who {
            name: token.name.clone(),
            role: token.role,
        })
    }

    /// All users, by name.
    pub fn users(&self) -> Vec<UserView> {
        let kept = self.kept.lock();
        let view = |user: &User| UserView {
            name: user.name.clone(),
            role: user.role,
        };
        let mut users: Vec<_> = kept.users.iter().map(view).collect();
        users.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        users
    }

    /// # Errors
    /// There is such a user, or name and password are of no use.
    pub async fn add_user(
        self: &Arc<Self>,
        name: &str,
        password: &str,
        role: Role,
    ) -> Result<(), UsersError> {
        let user = self.new_user(name, password, role).await?;
        self.change(move |kept| {
            if kept.users.iter().any(|other| other.name == user.name) {
                let text = format!("there is a user {:?} already", user.name);
                return Err(UsersError::Exists(text));
            }
            if kept.users.len() >= ENTRIES_MAX {
                let text = format!("there are {ENTRIES_MAX} users, and no more may be");
                return Err(UsersError::Conflict(text));
            }
            kept.users.push(user);
            Ok(())
        })
        .await
    }

    /// Gives a user another password, another role, or both. With another
    /// password its browsers have to log in again.
    ///
    /// # Errors
    /// There is no such user; the password is of no use; or no admin is left.
    pub async fn change_user(
        self: &Arc<Self>,
        name: &str,
        password: Option<&str>,
        role: Option<Role>,
    ) -> Result<(), UsersError> {
        let hash = match password {
            Some(password) => Some(self.hash_of(password).await?),
            None => None,
        };
        let name = name.to_owned();
        self.change(move |kept| {
            let had_admin = has_admin(kept);
            let mut users = kept.users.iter_mut();
            let user = users.find(|user| user.name == name);
            let user = user.ok_or_else(|| no_user(&name))?;
            if let Some(hash) = hash {
                user.password = hash;
            }
            user.role = role.unwrap_or(user.role);
            keep_an_admin(had_admin, kept)
        })
        .await
    }

    /// # Errors
    /// There is no such user, or no admin is left.
    pub async fn remove_user(self: &Arc<Self>, name: &str) -> Result<(), UsersError> {
        let name = name.to_owned();
        self.change(move |kept| {
            let had_admin = has_admin(kept);
            let before = kept.users.len();
            kept.users.retain(|user| user.name != name);
            match kept.users.len() == before {
                true => Err(no_user(&name)),
                false => keep_an_admin(had_admin, kept),
            }
        })
        .await
    }

    /// All tokens, those that have expired among them, in the order in which they
    /// were made.
    pub fn tokens(&self) -> Vec<TokenView> {
        self.kept.lock().tokens.iter().map(Token::view).collect()
    }

    /// A new token, which nobody can be told a second time.
    ///
    /// # Errors
    /// The name is of no use.
    pub async fn add_token(
        self: &Arc<Self>,
        name: &str,
        role: Role,
        lasts: Option<Duration>,
        now: Time,
    ) -> Result<(TokenView, String), UsersError> {
        check_name(name)?;
        let failed = |why: &str| UsersError::Failed(why.to_owned());
        let token = random_token().map_err(failed)?;
        let millis = |time: Time| time.as_micros() / 1000;
        let kept = Token {
            // Of the hash, so that it tells nothing of the token.
            id: crate::base64::encode(&sha256(token.as_bytes())[..9]).replace(['+', '/'], "0"),
            name: name.into(),
            role,
            sha256: crate::base64::encode(&sha256(token.as_bytes())),
            created_at_ms: millis(now),
            expires_at_ms: lasts.map(|lasts| millis(now + lasts)),
        };
        let view = kept.view();
        self.change(move |all| {
            if all.tokens.len() >= ENTRIES_MAX {
                let text = format!("there are {ENTRIES_MAX} tokens: revoke some");
                return Err(UsersError::Conflict(text));
            }
            all.tokens.push(kept);
            Ok(())
        })
        .await?;
        Ok((view, token))
    }

    /// # Errors
    /// There is no such token.
    pub async fn remove_token(self: &Arc<Self>, id: &str) -> Result<(), UsersError> {
        let id = id.to_owned();
        self.change(move |kept| {
            let before = kept.tokens.len();
            kept.tokens.retain(|token| token.id != id);
            match kept.tokens.len() == before {
                true => Err(UsersError::NotFound(format!("there is no token {id:?}"))),
                false => Ok(()),
            }
        })
        .await
    }

    async fn new_user(&self, name: &str, password: &str, role: Role) -> Result<User, UsersError> {
        check_name(name)?;
        Ok(User {
            name: name.into(),
            role,
            password: self.hash_of(password).await?,
        })
    }

    async fn hash_of(&self, password: &str) -> Result<String, UsersError> {
        if password.chars().count() < PASSWORD_CHARS_MIN || password.len() > PASSWORD_BYTES_MAX {
            return Err(UsersError::Invalid(format!(
                "a password has {PASSWORD_CHARS_MIN} characters at least, and \
                 {PASSWORD_BYTES_MAX} bytes at most"
            )));
        }
        let hash = hashed(self.turn().await?, password, hash_argon2id).await;
        let hash = hash.unwrap_or(Err("the broker stops"));
        hash.map_err(|why| UsersError::Failed(why.to_owned()))
    }

    /// Changes what is kept, if the file can be written. Once it is begun it is
    /// done, so that the file is never ahead of what holds.
    async fn change(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Kept) -> Result<(), UsersError> + Send + 'static,
    ) -> Result<(), UsersError> {
        let writing = self.writing.clone().lock_owned().await;
        let users = self.clone();
        let changed = to_the_end(async move {
            let _writing = writing;
            users.change_now(change).await
        });
        let stops = UsersError::Failed("the broker stops".to_owned());
        changed.await.unwrap_or(Err(stops))
    }

    async fn change_now(
        &self,
        change: impl FnOnce(&mut Kept) -> Result<(), UsersError>,
    ) -> Result<(), UsersError> {
        let mut kept = self.kept.lock().clone();
        change(&mut kept)?;
        if let Some(path) = self.path.clone() {
            let text = serde_json::to_vec_pretty(&kept);
            let written = tokio::task::spawn_blocking(move || write(&path, &text?));
            let written = written.await.unwrap_or_else(|error| Err(error.into()));
            written.map_err(|error| {
                UsersError::Failed(format!("{FILE} cannot be written: {error}"))
            })?;
        }
        if !kept.users.is_empty() {
            *self.setup.lock() = None;
        }
        *self.kept.lock() = kept;
        self.forget_logins();
        self.changed.send_replace(());
        Ok(())
    }

    /// Those are of no use any more whose user is gone or has another password.
    fn forget_logins(&self) {
        // In the order of all that takes both.
        let mut logins = self.logins.lock();
        let kept = self.kept.lock();
        let users = kept.users.iter();
        let users: FxHashMap<&str, &str> =
            users.map(|user| (&*user.name, &*user.password)).collect();
        logins.retain(|_, login| match &login.whose {
            Whose::User { name, password } => users.get(&**name) == Some(&&**password),
            Whose::Lent => true,
        });
    }
}

/// Does something slow with a password, on a thread that is there for such. The
/// turn is over when it is done, whether or not somebody still waits for it.
async fn hashed<T: Send + 'static>(
    turn: Turn,
    password: &str,
    work: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> Option<T> {
    let end = password.floor_char_boundary(PASSWORD_BYTES_MAX);
    let password = password.as_bytes()[..end].to_vec();
    let work = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work(&password)
    });
    work.await.ok()
}

/// Room for one more among so many of them: who was used longest ago gives way.
fn make_room(logins: &mut FxHashMap<[u8; 32], Login>, max: usize, is_one: impl Fn(&Whose) -> bool) {
    let mine = logins.iter().filter(|(_, login)| is_one(&login.whose));
    if mine.clone().count() < max {
        return;
    }
    let oldest = mine.min_by_key(|(_, login)| login.used);
    if let Some(oldest) = oldest.map(|(key, _)| *key) {
        logins.remove(&oldest);
    }
}

/// A password that nobody has, for names that nobody has.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$MDAwMDAwMDAwMDAwMDAwMA$\
                      AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

impl Token {
    fn view(&self) -> TokenView {
        TokenView {
            id: self.id.clone(),
            name: self.name.clone(),
            role: self.role,
            created_at_ms: self.created_at_ms,
            expires_at_ms: self.expires_at_ms,
        }
    }
}

fn no_user(name: &str) -> UsersError {
    UsersError::NotFound(format!("there is no user {name:?}"))
}

fn check_name(name: &str) -> Result<(), UsersError> {
    let invalid = |why: String| UsersError::Invalid(why);
    check_user(name).map_err(|why| invalid(why.to_owned()))?;
    match name.len() > NAME_BYTES_MAX {
        true => Err(invalid(format!(
            "a name has {NAME_BYTES_MAX} bytes at most"
        ))),
        false => Ok(()),
    }
}

fn has_admin(kept: &Kept) -> bool {
    kept.users.iter().any(|user| user.role == Role::Admin)
}

/// Nobody locks the last admin out, itself included.
fn keep_an_admin(had_admin: bool, kept: &Kept) -> Result<(), UsersError> {
    match had_admin && !has_admin(kept) {
        false => Ok(()),
        true => Err(UsersError::Conflict(
            "one admin has to be left: make another one first".to_owned(),
        )),
    }
}

/// 256 random bits, in letters that a URL takes.
fn random_token() -> Result<String, &'static str> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| "the system gives no random bytes")?;
    let text = crate::base64::encode(&bytes);
    Ok(text
        .trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_"))
}

/// What the file has; `None`: there is none.
fn read(path: &Path) -> io::Result<Option<Kept>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    let kept: Kept = serde_json::from_slice(&text)?;
    for user in &kept.users {
        Stored::parse(&user.password).map_err(|why| {
            io::Error::new(
                ErrorKind::InvalidData,
                format!("user {:?}: {why}", user.name),
            )
        })?;
    }
    Ok(Some(kept))
}

/// Replaces the file, or leaves it as it was.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("json.new");
    let mut options = OpenOptions::new();
    let mut file = (options.write(true).create(true).truncate(true))
        .mode(0o600)
        .open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::ZERO;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(work)
    }

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("rotamq-users-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    #[test]
    fn the_first_admin_is_made_with_the_token_and_only_once() {
        let users = Users::open(None, Duration::from_secs(60)).map(Arc::new);
        let users = users.expect("none is there");
        let token = users.offer_setup().expect("nobody is there");
        block_on(async {
            assert!(
                users
                    .set_up("another", "ada", "correct horse")
                    .await
                    .is_err()
            );
            // Who mistypes may try again.
            assert!(users.set_up(&token, "ada", "short").await.is_err());
            users
                .set_up(&token, "ada", "correct horse")
                .await
                .expect("the token");
            assert!(users.set_up(&token, "bob", "correct horse").await.is_err());
        });
        assert_eq!(users.offer_setup(), None);
        assert_eq!(users.users().len(), 1);
    }

    #[test]
    fn a_login_ends_when_nobody_uses_it_and_with_its_user() {
        let users = Users::open(None, Duration::from_secs(600)).map(Arc::new);
        let users = users.expect("none is there");
        let log_in = |name, password| {
            let users = users.clone();
            async move {
                let turn = users.turn().await.expect("nobody else waits");
                users.log_in(turn, name, password, NOW).await
            }
        };
        block_on(async {
            users
                .add_user("ada", "correct horse", Role::Admin)
                .await
                .expect("a user");
            users
                .add_user("bob", "battery staple", Role::Viewer)
                .await
                .expect("a user");
            assert_eq!(log_in("bob", "correct horse").await, None);
            assert_eq!(log_in("eve", "correct horse").await, None);
            let (login, role) = log_in("bob", "battery staple").await.expect("his");
            assert_eq!(role, Role::Viewer);
            let later = |secs| NOW + Duration::from_secs(secs);
            assert!(users.of_login(&login, later(599)).is_some());
            assert!(users.of_login(&login, later(1100)).is_some(), "it was used");
            assert!(users.of_login(&login, later(1700)).is_none());
            assert!(users.of_token(&login, later(1)).is_none(), "it is no token");
            let (login, _) = log_in("bob", "battery staple").await.expect("his");
            users
                .change_user("bob", None, Some(Role::Operator))
                .await
                .expect("bob");
            let who = users.of_login(&login, NOW).expect("still in");
            assert_eq!(who.role, Role::Operator, "at once");
            users.remove_user("bob").await.expect("bob");
            assert!(users.of_login(&login, NOW).is_none());
            assert!(users.remove_user("ada").await.is_err(), "the last admin");
            assert!(
                users
                    .change_user("ada", None, Some(Role::Viewer))
                    .await
                    .is_err()
            );
        });
    }

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_tells_no_secret() {
        let folder = folder("kept");
        let open = || {
            let users = Users::open(Some(&folder), Duration::from_secs(60));
            Arc::new(users.expect("it is ours"))
        };
        let users = open();
        let token = block_on(async {
            users
                .add_user("ada", "correct horse", Role::Admin)
                .await
                .expect("a user");
            let lasts = Some(Duration::from_secs(10));
            let (_, token) = users
                .add_token("scraper", Role::Viewer, lasts, NOW)
                .await
                .expect("one");
            token
        });
        let text = fs::read_to_string(folder.join(FILE)).expect("the file");
        assert!(
            !text.contains(&token) && !text.contains("correct horse"),
            "{text}"
        );
        let again = open();
        assert_eq!(again.offer_setup(), None);
        let who = again.of_token(&token, NOW).expect("it is known");
        assert_eq!((who.name.as_str(), who.role), ("scraper", Role::Viewer));
        assert!(
            again
                .of_token(&token, NOW + Duration::from_secs(10))
                .is_none()
        );
        let id = again.tokens()[0].id.clone();
        block_on(again.remove_token(&id)).expect("it is there");
        assert!(open().of_token(&token, NOW).is_none());
        fs::write(folder.join(FILE), "{\"users\": 1}").expect("written");
        let error = Users::open(Some(&folder), Duration::ZERO)
            .err()
            .expect("it is damaged");
        assert!(error.contains(FILE), "{error}");
        fs::remove_dir_all(folder).expect("removed");
    }

    /// However soon who asks goes away, no more are hashed than may be, and
    /// others are told that it is too much.
    #[test]
    fn no_more_passwords_are_hashed_at_a_time_whoever_waits_for_them() {
        let users = Users::open(None, Duration::from_secs(60)).expect("none is there");
        let (under_way, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        block_on(async {
            let mut asked = Vec::new();
            for _ in 0..HASHES_MAX {
                let (turn, wait) = (users.turn().await.expect("nobody waits"), wait.clone());
                let work = hashed(turn, "guess", move |_| wait.lock().recv().is_ok());
                let mut work = Box::pin(work);
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                assert!(work.as_mut().poll(&mut cx).is_pending());
                // Who asked is gone.
            }
            for _ in 0..HASHES_WAITING_MAX {
                let mut turn = Box::pin(users.turn());
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                assert!(turn.as_mut().poll(&mut cx).is_pending());
                asked.push(turn);
            }
            assert_eq!(users.turn().await.err(), Some(UsersError::Busy));
            under_way.send(()).expect("one waits for it");
            drop(asked.remove(0).await.expect("its turn"));
            drop(asked);
            under_way.send(()).expect("one waits for it");
            users.turn().await.expect("nobody waits");
        });
    }

    /// A change that was begun is done, with the file and without who asked.
    #[test]
    fn a_change_is_done_when_who_asked_for_it_is_gone() {
        let folder = folder("gone");
        let open = || Users::open(Some(&folder), Duration::from_secs(60)).expect("it is ours");
        let users = Arc::new(open());
        block_on(async {
            let (view, token) = users
                .add_token("scraper", Role::Viewer, None, NOW)
                .await
                .expect("one");
            let mut changes = users.changes();
            let mut revoking = Box::pin(users.remove_token(&view.id));
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(revoking.as_mut().poll(&mut cx).is_pending());
            drop(revoking);
            changes.changed().await.expect("it is done");
            assert!(users.of_token(&token, NOW).is_none());
            assert!(open().of_token(&token, NOW).is_none());
        });
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_user_has_so_many_logins_and_pushes_out_nobody_else() {
        let users = Users::open(None, Duration::from_secs(60)).expect("none is there");
        let user = |name: &str| Whose::User {
            name: name.to_owned(),
            password: String::new(),
        };
        let lasts = Duration::from_secs(60);
        users.admit(user("ada"), NOW, lasts).expect("let in");
        users.lend(NOW).expect("lent");
        for _ in 0..LOGINS_PER_USER_MAX + 3 {
            users.admit(user("bob"), NOW, lasts).expect("let in");
        }
        let logins = users.logins.lock();
        assert_eq!(logins.len(), LOGINS_PER_USER_MAX + 2);
        let ada = logins.values().find(|login| login.whose == user("ada"));
        assert!(ada.is_some());
    }

    #[test]
    fn who_is_not_there_is_checked_against_a_hash() {
        assert!(Stored::parse(NOBODY).is_ok());
    }
}
