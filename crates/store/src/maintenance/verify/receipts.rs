//! Rows by position: receipts and the stream of each user.

use std::fmt::Debug;

use super::Verifier;
use crate::{
    Error,
    codec::{AtPosition, KeyPart},
    maintenance::pages::TypedPages,
    tables::{ACCOUNT_DATA, RECEIPTS, RECEIPTS_BY_POSITION, Table, USER_STREAM},
};

impl Verifier<'_> {
    pub(super) async fn check_receipts(&mut self) -> Result<(), Error> {
        self.begin("receipts");
        self.check_receipts_have_positions().await?;
        self.check_positions_have_receipts().await?;
        self.check_user_streams().await
    }

    async fn check_receipts_have_positions(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&RECEIPTS);
        while let Some(rows) = pages.next(self.read()).await? {
            let keys = rows.iter().map(|(key, receipt)| (key.0, receipt.position));
            let there = self.are_there(&RECEIPTS_BY_POSITION, keys).await?;
            for ((key, receipt), there) in rows.iter().zip(there) {
                self.check_position(&RECEIPTS, key, receipt);
                if !there {
                    let problem =
                        format!("has no row in table 'receipts_by_position' at {:?}", receipt.position);
                    self.found(&RECEIPTS, key, problem);
                }
            }
            self.advance(rows.len());
        }
        Ok(())
    }

    async fn check_positions_have_receipts(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&RECEIPTS_BY_POSITION);
        while let Some(rows) = pages.next(self.read()).await? {
            let keys = rows.iter().map(|((room, _), receipt)| {
                (*room, receipt.user, receipt.receipt_type.clone(), receipt.thread_id.clone())
            });
            let receipts = self.load_all(&RECEIPTS, keys).await?;
            for ((key, _), receipt) in rows.iter().zip(receipts) {
                let moved = receipt.row().is_some_and(|receipt| receipt.position != key.1);
                if receipt.is_missing() || moved {
                    let problem = "refers to a receipt that is not there, or has moved on".to_owned();
                    self.found(&RECEIPTS_BY_POSITION, key, problem);
                }
            }
            self.advance(rows.len());
        }
        Ok(())
    }

    async fn check_user_streams(&mut self) -> Result<(), Error> {
        let mut pages = TypedPages::of(&USER_STREAM);
        while let Some(rows) = pages.next(self.read()).await? {
            let last = self.report.position;
            for (key, _) in rows.iter().filter(|((_, position), _)| *position > last) {
                self.found(&USER_STREAM, key, "is past the last position".to_owned());
            }
            self.advance(rows.len());
        }
        let mut pages = TypedPages::of(&ACCOUNT_DATA);
        while let Some(rows) = pages.next(self.read()).await? {
            let keys = rows.iter().map(|((user, ..), data)| (*user, data.position));
            let there = self.are_there(&USER_STREAM, keys).await?;
            for ((key, data), there) in rows.iter().zip(there) {
                if !there {
                    let problem = format!("has no row in table 'user_stream' at {:?}", data.position);
                    self.found(&ACCOUNT_DATA, key, problem);
                }
            }
            self.advance(rows.len());
        }
        Ok(())
    }

    pub(super) fn check_position<K: KeyPart, V: Debug>(
        &mut self,
        table: &Table<K, AtPosition<V>>,
        key: &K,
        row: &AtPosition<V>,
    ) {
        if row.position > self.report.position {
            self.found(table, key, format!("is at {:?}, past the last position", row.position));
        }
    }
}
