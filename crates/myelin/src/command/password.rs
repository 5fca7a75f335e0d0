//! Where a password comes from: the command line if it must, the terminal without echo, or standard input.

use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context, ensure};
use console::Term;
use ruma::UserId;

pub fn obtain(given: Option<String>, user_id: &UserId) -> anyhow::Result<String> {
    let password = match given {
        Some(password) => password,
        None if io::stdin().is_terminal() => ask(user_id)?,
        None => first_line(&mut io::stdin().lock())?,
    };
    ensure!(!password.is_empty(), "the password is empty");
    Ok(password)
}

fn ask(user_id: &UserId) -> anyhow::Result<String> {
    let terminal = Term::stderr();
    let secret = |question: &str| -> io::Result<String> {
        terminal.write_str(question)?;
        terminal.read_secure_line()
    };
    let password = secret(&format!("Password for {user_id}: "))?;
    ensure!(password == secret("Once more: ")?, "the two passwords differ");
    Ok(password)
}

fn first_line(input: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    let read = input.read_line(&mut line).context("the password on standard input cannot be read")?;
    ensure!(read > 0, "no password: write it to standard input, or run this in a terminal to be asked");
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line() {
        for (input, expected) in
            [("a b\nc\n", Some("a b")), ("x\r\n", Some("x")), ("x", Some("x")), ("", None)]
        {
            assert_eq!(first_line(&mut input.as_bytes()).ok().as_deref(), expected);
        }
    }
}
