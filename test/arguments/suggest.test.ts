import test from "ava";
import fc from "fast-check";

import { findClosest, didYouMean } from "../../src/arguments/suggest.js";

test("the closest name is suggested, and none if all are distant", (t) => {
  const known = ["batchSize", "batch-size", "q_proj", "v_proj", "head", "rho"];
  t.is(findClosest("batchsize", known), "batchSize");
  t.is(findClosest("BATCH_SIZE", ["batchSize"]), "batchSize");
  t.is(findClosest("v_porj", known), "v_proj");
  t.is(findClosest("haed", known), "head");
  t.is(findClosest("roh", known), "rho");
  // Two swapped letters are one mistake, closer than two other letters.
  t.is(findClosest("abcdfe", ["abcdxy", "abcdef"]), "abcdef");
  t.is(findClosest("q_proj", known), undefined);
  t.is(findClosest("completely else", known), undefined);
  t.is(findClosest("", known), undefined);
  t.is(findClosest("x", []), undefined);
  t.is(didYouMean("haed", known), " (did you mean head?)");
  t.is(didYouMean(3, known), "");
});

test("one edit of a name of four characters or more is always found", (t) => {
  const letter = fc.constantFrom(..."abcdefgh");
  const name = fc.string({ unit: letter, minLength: 4, maxLength: 12 });
  const property = fc.property(name, fc.nat(), letter, (known, at, with_) => {
    const i = at % known.length;
    const edited = known.slice(0, i) + with_ + known.slice(i + 1);
    return edited === known || findClosest(edited, [known]) === known;
  });
  t.notThrows(() => fc.assert(property));
});
