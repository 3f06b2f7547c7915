//! Training of tokenizers.

use std::path::Path;

use lowrank_engine::error::{self as engine, Code, fail_code};
use lowrank_engine::staged_file::StagedFile;
use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer as Inner};

use crate::background;
use crate::error::Result;

/// Trains byte-level BPE on `texts` and writes a `tokenizer.json`. Special tokens get the first ids, in the given
/// order. `bos`, if given, is one of them and precedes every encoded text. Equal texts give equal files.
#[napi(catch_unwind, ts_return_type = "Promise<null | Failure>")]
pub fn train_bpe<'env>(
    env: &'env Env,
    texts: Vec<String>,
    vocab_size: u32,
    special_tokens: Vec<String>,
    path: String,
    bos: Option<String>,
) -> Result<Object<'env>> {
    background::run_for_null(env, "train-bpe", move || {
        let json = train_tokenizer(&texts, vocab_size as usize, &special_tokens, bos.as_deref())?;
        let mut file = StagedFile::create(Path::new(&path))?;
        file.write(json.as_bytes())?;
        file.finish()
    })
}

/// The `tokenizer.json` of a byte-level BPE: all 256 bytes are tokens, so any text has ids.
pub(super) fn train_tokenizer(
    texts: &[String],
    vocab_size: usize,
    special_tokens: &[String],
    bos: Option<&str>,
) -> engine::Result<String> {
    let least = 256 + special_tokens.len();
    if vocab_size < least {
        let what =
            format!("trainBpe: a vocabulary of {vocab_size} does not hold the {least} tokens that are given");
        return Err(fail_code(Code::Option, what));
    }
    let failed = |e: tokenizers::Error| fail_code(Code::Internal, format!("trainBpe: {e}"));
    let mut tokenizer = Inner::new(BPE::default());
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
    let special = |token: &String| AddedToken::from(token.clone(), true);
    let mut trainer = TrainerWrapper::from(
        BpeTrainer::builder()
            .vocab_size(vocab_size)
            .show_progress(false)
            .special_tokens(special_tokens.iter().map(special).collect())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build(),
    );
    tokenizer.train(&mut trainer, texts.iter()).map_err(failed)?;
    if let Some(bos) = bos {
        let Some(id) = tokenizer.token_to_id(bos) else {
            return Err(fail_code(Code::Option, format!("trainBpe: {bos:?} is none of the special tokens")));
        };
        let processor = TemplateProcessing::builder()
            .try_single(format!("{bos} $A"))
            .and_then(|b| b.try_pair(format!("{bos} $A {bos} $B")))
            .map_err(|e| fail_code(Code::Option, format!("trainBpe: {e}")))?
            .special_tokens(vec![(bos.to_string(), id)])
            .build()
            .map_err(|e| fail_code(Code::Internal, format!("trainBpe: {e}")))?;
        tokenizer.with_post_processor(Some(processor));
    }
    tokenizer.to_string(true).map_err(failed)
}
