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
use std::time::Duration;

use aws_lc_rs::rand;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::guard::Who;
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
const NAME_BYTES_MAX: usize = 128;
const PASSWORD_CHARS_MIN: usize = 8;
const PASSWORD_BYTES_MAX: usize = 1024;
/// Passwords that are hashed at one time: each takes 20 ms, and 19 MiB.
const HASHES_MAX: usize = 2;
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

enum Whose {
    User(String),
    Lent,
}

/// Those that there are.
pub(crate) struct Users {
    // `None`: nothing is kept.
    path: Option<PathBuf>,
    kept: Mutex<Kept>,
    // Held while the file is written: the last that is written is the last.
    writing: tokio::sync::Mutex<()>,
    logins: Mutex<FxHashMap<[u8; 32], Login>>,
    // The hash of the token with which the first admin is made.
    setup: Mutex<Option<[u8; 32]>>,
    hashes: Semaphore,
    login_expiry: Duration,
}

/// Why something was not done: a sentence for who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UsersError {
    NotFound(String),
    Exists(String),
    Invalid(String),
    /// It does not fit what is there.
    Conflict(String),
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
            writing: tokio::sync::Mutex::new(()),
            logins: Mutex::default(),
            setup: Mutex::new(None),
            hashes: Semaphore::new(HASHES_MAX),
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

    /// Makes the first admin.
    ///
    /// # Errors
    /// It is not the token, or name and password are of no use.
    pub async fn set_up(&self, token: &str, name: &str, password: &str) -> Result<(), UsersError> {
        let wrong = || {
            let text = "this is not the token that was logged when the broker started, or it was \
                        used already";
            UsersError::Invalid(text.to_owned())
        };
        let hash = sha256(token.as_bytes());
        if *self.setup.lock() != Some(hash) {
            return Err(wrong());
        }
        let user = self.new_user(name, password, Role::Admin).await?;
        // Who mistypes may try again, and of two only one is first.
        self.change(|kept| match kept.users.is_empty() {
            true => {
                kept.users.push(user);
                Ok(())
            }
            false => Err(wrong()),
        })
        .await?;
        *self.setup.lock() = None;
        Ok(())
    }

    /// A user's password is right: what its browser shows from now on.
    pub async fn log_in(&self, name: &str, password: &str, now: Time) -> Option<(String, Role)> {
        let found = {
            let kept = self.kept.lock();
            let mut users = kept.users.iter();
            users.find(|user| user.name == name).cloned()
        };
        // Who is not there takes as long as who is.
        let stored = found.as_ref().map_or(NOBODY, |user| &user.password);
        let stored = Stored::parse(stored).ok()?;
        let is_right = self.hashed(password, move |password| stored.matches(password));
        let user = found.filter(|_| password.len() <= PASSWORD_BYTES_MAX);
        let (true, Some(user)) = (is_right.await?, user) else {
            return None;
        };
        let token = self.admit(Whose::User(user.name), now, self.login_expiry)?;
        Some((token, user.role))
    }

    /// What a browser showed is good for nothing any more.
    pub fn log_out(&self, login: &str) {
        self.logins.lock().remove(&sha256(login.as_bytes()));
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
        if logins.len() >= LOGINS_MAX {
            let oldest = logins.iter().min_by_key(|(_, login)| login.used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                logins.remove(&oldest);
            }
        }
        let login = Login {
            whose,
            until: now + lasts,
            used: now,
        };
        logins.insert(sha256(token.as_bytes()), login);
        Some(token)
    }

    /// Who shows this cookie.
    pub fn of_login(&self, login: &str, now: Time) -> Option<Who> {
        let mut logins = self.logins.lock();
        let login = logins.get_mut(&sha256(login.as_bytes()))?;
        if login.until <= now {
            return None;
        }
        let Whose::User(name) = &login.whose else {
            return None; // It is a token.
        };
        if now.since(login.used) >= TOUCH_AFTER {
            (login.used, login.until) = (now, now + self.login_expiry);
        }
        let name = name.clone();
        drop(logins);
        let kept = self.kept.lock();
        let user = kept.users.iter().find(|user| user.name == name)?;
        Some(Who {
            name,
            role: user.role,
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
    pub async fn add_user(&self, name: &str, password: &str, role: Role) -> Result<(), UsersError> {
        let user = self.new_user(name, password, role).await?;
        self.change(|kept| {
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
        &self,
        name: &str,
        password: Option<&str>,
        role: Option<Role>,
    ) -> Result<(), UsersError> {
        let hash = match password {
            Some(password) => Some(self.hash_of(password).await?),
            None => None,
        };
        let is_new = hash.is_some();
        self.change(|kept| {
            let had_admin = has_admin(kept);
            let mut users = kept.users.iter_mut();
            let user = users.find(|user| user.name == name);
            let user = user.ok_or_else(|| no_user(name))?;
            if let Some(hash) = hash {
                user.password = hash;
            }
            user.role = role.unwrap_or(user.role);
            keep_an_admin(had_admin, kept)
        })
        .await?;
        if is_new {
            self.forget_logins(name);
        }
        Ok(())
    }

    /// # Errors
    /// There is no such user, or no admin is left.
    pub async fn remove_user(&self, name: &str) -> Result<(), UsersError> {
        self.change(|kept| {
            let had_admin = has_admin(kept);
            let before = kept.users.len();
            kept.users.retain(|user| user.name != name);
            match kept.users.len() == before {
                true => Err(no_user(name)),
                false => keep_an_admin(had_admin, kept),
            }
        })
        .await?;
        self.forget_logins(name);
        Ok(())
    }

    fn forget_logins(&self, name: &str) {
        let is_other = |login: &Login| !matches!(&login.whose, Whose::User(user) if user == name);
        self.logins.lock().retain(|_, login| is_other(login));
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
        &self,
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
        self.change(|all| {
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
    pub async fn remove_token(&self, id: &str) -> Result<(), UsersError> {
        self.change(|kept| {
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
        let hash = self.hashed(password, hash_argon2id).await;
        let hash = hash.unwrap_or(Err("the broker stops"));
        hash.map_err(|why| UsersError::Failed(why.to_owned()))
    }

    /// Does something slow with a password, on a thread that is there for such.
    async fn hashed<T: Send + 'static>(
        &self,
        password: &str,
        work: impl FnOnce(&[u8]) -> T + Send + 'static,
    ) -> Option<T> {
        let _turn = self.hashes.acquire().await.ok()?;
        let end = password.floor_char_boundary(PASSWORD_BYTES_MAX);
        let password = password.as_bytes()[..end].to_vec();
        (tokio::task::spawn_blocking(move || work(&password)).await).ok()
    }

    /// Changes what is kept, if the file can be written.
    async fn change(
        &self,
        change: impl FnOnce(&mut Kept) -> Result<(), UsersError>,
    ) -> Result<(), UsersError> {
        let _writing = self.writing.lock().await;
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
        *self.kept.lock() = kept;
        Ok(())
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
        let users = Users::open(None, Duration::from_secs(60)).expect("none is there");
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
        let users = Users::open(None, Duration::from_secs(600)).expect("none is there");
        block_on(async {
            users
                .add_user("ada", "correct horse", Role::Admin)
                .await
                .expect("a user");
            users
                .add_user("bob", "battery staple", Role::Viewer)
                .await
                .expect("a user");
            assert_eq!(users.log_in("bob", "correct horse", NOW).await, None);
            assert_eq!(users.log_in("eve", "correct horse", NOW).await, None);
            let (login, role) = users
                .log_in("bob", "battery staple", NOW)
                .await
                .expect("his");
            assert_eq!(role, Role::Viewer);
            let later = |secs| NOW + Duration::from_secs(secs);
            assert!(users.of_login(&login, later(599)).is_some());
            assert!(users.of_login(&login, later(1100)).is_some(), "it was used");
            assert!(users.of_login(&login, later(1700)).is_none());
            assert!(users.of_token(&login, later(1)).is_none(), "it is no token");
            let (login, _) = users
                .log_in("bob", "battery staple", NOW)
                .await
                .expect("his");
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
        let open = || Users::open(Some(&folder), Duration::from_secs(60)).expect("it is ours");
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

    #[test]
    fn who_is_not_there_is_checked_against_a_hash() {
        assert!(Stored::parse(NOBODY).is_ok());
    }
}
