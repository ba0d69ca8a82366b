"""The 147 rows of the reference task's checklist: what each is, the settings or the command that do it, and a test of it.

The table is docs/techniques.md:

    uv run python -m tests.reference_rows > docs/techniques.md
"""

from collections.abc import Iterator
from dataclasses import dataclass

from search_spaces.schema import show
from tests.test_reference_techniques import TECHNIQUES

HEAD = """# What five teams tried, and how it is said here

Five teams classified faces by mask, gender and age, and each wrote a report of what it tried. These are all of it, row by row: the
settings (one example of their values) or the command that do the same here, and a test of it. `S4-17` is row 17 of the winner's report.
What the settings mean: [space.md](space.md); the commands are those of [commands.md](commands.md). Whole searches as each
team ran them: the spaces `reports/000` to `reports/004`.

Made by `uv run python -m tests.reference_rows > docs/techniques.md`.

"""
REPORTS = {"S0": 32, "S1": 31, "S2": 24, "S3": 23, "S4": 37}  # rows of each
LEARNS = "test_reference_techniques.py::test_a_technique_learns_a_repeated_batch_and_reaches_every_parameter_that_is_to_learn"


@dataclass(frozen=True)
class Row:
    """A row of the checklist. Its settings are those of TECHNIQUES."""

    what: str
    how: str = ""  # in words, where settings do not say it all
    test: str = ""  # file below tests/::function; the one that trains its settings where it is empty
    left_out: str = ""  # the reason, where it is


ROWS: dict[str, Row] = {
    "S0-1": Row(
        "a look at images and labels",
        "`look --data photos`, and in the report",
        "tuner/test_look.py::test_one_page_shows_counts_examples_and_what_looks_odd",
    ),
    "S0-2": Row("colour jitter"),
    "S0-3": Row("centre crop of given size"),
    "S0-4": Row("rotation"),
    "S0-5": Row("horizontal flip"),
    "S0-6": Row(
        "normalisation by a given mean and deviation, ImageNet's, or the images' own", "`normalize: imagenet`, `dataset` or `backbone`"
    ),
    "S0-7": Row("mixup with a binary cross-entropy"),
    "S0-8": Row("CutMix with a focal loss"),
    "S0-9": Row("resizing that does not keep the aspect"),
    "S0-10": Row("image sizes, square or not"),
    "S0-11": Row(
        "a split by person, not by image",
        "always, by group; `leaks` finds what crosses",
        "analysis/leaks/test_leaks.py::test_where_only_the_group_can_be_seen_a_split_by_image_flatters_and_one_by_groups_does_not",
    ),
    "S0-12": Row("stratified k-fold by person"),
    "S0-13": Row("weighted sampling"),
    "S0-14": Row("focal, cross-entropy, label smoothing, F1, BCE"),
    "S0-15": Row("ArcFace"),
    "S0-16": Row("networks: ResNet, EfficientNet, ViT, Swin, MobileNet, CoAtNet", "every network of timm by name, alone or as a choice"),
    "S0-17": Row("early stopping"),
    "S0-18": Row("Canny edges as a fourth channel"),
    "S0-19": Row("SGD, momentum, Adam, Adagrad"),
    "S0-20": Row("weight decay"),
    "S0-21": Row("exponential, lambda, step, cosine with restarts, cyclic and plateau schedules"),
    "S0-22": Row("batch sizes"),
    "S0-23": Row(
        "a model each for mask, gender and age, put together",
        "`task: {choice: [mask, gender, age]}` in one space",
        "analysis/members/test_compose.py::test_the_rth_best_specialists_join",
    ),
    "S0-24": Row(
        "hard voting over tables of answers, of each size and normalisation",
        "`vote --csv a.csv b.csv c.csv --out vote.csv`",
        "analysis/ensemble/test_members.py::test_submissions_of_models_of_every_size_and_normalisation_vote_hard",
    ),
    "S0-25": Row(
        "soft voting over folds, for each target",
        "`vote --run faces --vote soft`",
        "analysis/members/test_out_of_fold.py::test_each_image_is_answered_by_the_model_of_its_fold",
    ),
    "S0-26": Row(
        "one training command whose settings are kept with each training",
        "`search --space effnet.yaml --data photos`",
        "trainables/test_trial.py::test_a_finished_trial_leaves_a_complete_record",
    ),
    "S0-27": Row(
        "TensorBoard",
        "`uvx tensorboard --logdir runs/faces/trials`",
        "trainables/test_trial.py::test_tensorboard_shows_the_curves_of_a_trial_under_its_number_and_backbone",
    ),
    "S0-28": Row("Git flow, templates, Notion, video calls", left_out="how a team talks; the report of a run is one file to share"),
    "S0-29": Row(
        "Weights & Biases",
        "`export-wandb faces`",
        "analysis/export_wandb/test_export_wandb.py::test_each_trial_is_a_run_with_settings_curve_and_files_and_exported_again_none_is_doubled",
    ),
    "S0-30": Row("mixed precision"),
    "S0-31": Row(
        "experiments managed by files of settings",
        "a space in YAML; `config.json` of each trial",
        "search_spaces/test_write.py::test_what_was_extended_overlaid_and_changed_reads_back_as_one_file",
    ),
    "S0-32": Row(
        "a leaderboard's score noted beside each submission",
        "`note runs/faces/ensemble/submission.csv --score 0.763 --by leaderboard`",
        "analysis/note/test_note.py::test_notes_are_kept_with_their_days_and_compared_with_our_own_score",
    ),
    "S1-1": Row("DeiT"),
    "S1-2": Row("BEiT with a learning rate that falls by layer"),
    "S1-3": Row("NFNet, EfficientNet-B5 and BEiT together", "the space `reports/001`"),
    "S1-4": Row(
        "settings in files, code in modules",
        "a space in YAML",
        "search_spaces/test_write.py::test_what_was_extended_overlaid_and_changed_reads_back_as_one_file",
    ),
    "S1-5": Row(
        "augmentation in training and at test time",
        "`vote --run faces --step tta`",
        "analysis/members/test_predictions.py::test_every_look_is_the_prediction_of_images_that_look_so_and_their_mean_counts",
    ),
    "S1-6": Row("random crop against centre crop"),
    "S1-7": Row(
        "label errors by models of other folds, for a human to check",
        "`refit --run faces --top 1 --folds 5`, then `suspects --run faces`",
        "analysis/suspects/test_suspects.py::test_planted_errors_of_a_run_are_all_found_and_nothing_else",
    ),
    "S1-8": Row(
        "analysis of errors by subgroup",
        "`mistakes --run faces`",
        "analysis/mistakes/test_mistakes.py::test_where_errors_were_planted_they_are_found_and_stand_first",
    ),
    "S1-9": Row("focal loss"),
    "S1-10": Row("loss weighted by class"),
    "S1-11": Row("weighted sampling for a task"),
    "S1-12": Row("one network with three heads"),
    "S1-13": Row("a network for age, another for mask and gender"),
    "S1-14": Row("age as a number beside its classes"),
    "S1-15": Row("Poisson jitter of capped ages"),
    "S1-16": Row("other people's faces with ages", "`data/extra`: a folder of images with labels"),
    "S1-17": Row("other people's masks, without gender or age"),
    "S1-18": Row(
        "MegaAge, dropped for its licence",
        left_out="whether a licence allows images nobody but their user can say; any images with labels come in by `data/extra`",
    ),
    "S1-19": Row(
        "further pre-training on the task's images",
        "`pretrain --backbone vit_tiny_patch16_224 --data photos --size 64`",
        "tuner/test_pretrain.py::test_the_command_writes_weights_that_a_search_begins_with",
    ),
    "S1-20": Row(
        "out-of-fold stacking by regression, random forest, SVM and k-NN",
        "`vote --run faces --vote stack_forest`",
        "analysis/votes/test_stackers.py::test_what_is_asked_for_answers_as_validation_evaluated_it",
    ),
    "S1-21": Row(
        "reviews of each other's code", left_out="how a team works; `replay` shows whether a record still trains to the same bits"
    ),
    "S1-22": Row("pseudo-labels", "`data/pseudo`: the probabilities that a vote gave"),
    "S1-23": Row("smoothing, warm-up, freezing, weight decay, multi-sample dropout"),
    "S1-24": Row("AdamP, RAdam and others; one cycle, cosine, linear"),
    "S1-25": Row("Cutout and grids cut out"),
    "S1-26": Row(
        "masks drawn on faces",
        "`draw-masks`, whose table goes into `data/extra`",
        "tuner/test_draw_masks.py::test_each_image_is_made_with_the_new_class_and_all_else_as_it_was",
    ),
    "S1-27": Row(
        "weights by image",
        "`data/weights`: a table of images and weights",
        "trainables/data/test_corrections.py::test_an_image_weighs_what_the_table_says_and_others_1",
    ),
    "S1-28": Row("attention heads"),
    "S1-29": Row(
        "CLIP's features, ResNeXt WSL, ResNet50",
        "each is a backbone of timm, and `probe` fits linear heads to frozen ones, or makes them of texts (`model/heads: zero_shot`)",
        "trainables/test_zero_shot.py::test_logits_are_open_clips_own_but_for_what_all_classes_share",
    ),
    "S1-30": Row(
        "Ray Tune, MC dropout, FixMatch, Grad-CAM",
        "`search`; `vote --run faces --mc-dropout 20`; `mistakes` with heat maps",
        "analysis/members/test_mc_dropout.py::test_a_pass_is_what_a_network_without_those_units_answers",
    ),
    "S1-31": Row(
        "whether validation speaks for the test images",
        "`report --run faces`: prior shift of the images to predict",
        "analysis/evaluation/test_shift.py::test_a_real_shift_is_significant_and_its_intervals_hold_the_true_shares",
    ),
    "S2-1": Row(
        "a page for a webcam or an upload",
        "`demo --ensemble runs/faces/ensemble`",
        "analysis/demo/test_demo.py::test_a_webcam_is_predicted_live_by_one_click_and_without_one_that_is_said",
    ),
    "S2-2": Row(
        "counts and distributions of labels",
        "`look --data photos`",
        "tuner/test_look.py::test_one_page_shows_counts_examples_and_what_looks_odd",
    ),
    "S2-3": Row("labels corrected by a list", "a list that `suspects` writes, or one of the contest's"),
    "S2-4": Row(
        "binary and partial tasks: age < 30 or not, masks worn or not",
        "`task: {choice: [age<30, age<60, mask, gender]}`",
        "analysis/members/test_compose.py::test_a_trial_is_advised_by_one_that_answers_a_question",
    ),
    "S2-5": Row("other cuts of the age"),
    "S2-6": Row("oversampling by the task's classes"),
    "S2-7": Row("oversampling whose copies are augmented"),
    "S2-8": Row("the smaller side resized, in training and inference"),
    "S2-9": Row("centre crop of 256"),
    "S2-10": Row("horizontal flip"),
    "S2-11": Row("shift, scale, rotation"),
    "S2-12": Row("hue and saturation"),
    "S2-13": Row("brightness and contrast"),
    "S2-14": Row("Gaussian noise"),
    "S2-15": Row(
        "ImageNet's normalisation, the same wherever an image is read",
        "",
        "trainables/data/test_views.py::test_the_input_of_an_image_is_the_same_in_validation_in_analysis_and_after_a_checkpoint",
    ),
    "S2-16": Row("ResNeXt, EfficientNet-B7 and others"),
    "S2-17": Row("a frozen backbone under hidden layers"),
    "S2-18": Row("focal loss"),
    "S2-19": Row("Adam with a cosine"),
    "S2-20": Row(
        "a check that inference sees images as training did",
        "always: transforms are kept with the weights",
        "trainables/data/test_views.py::test_the_input_of_an_image_is_the_same_in_validation_in_analysis_and_after_a_checkpoint",
    ),
    "S2-21": Row(
        "specialists that correct a joint model where they are sure",
        "`vote`: advised members",
        "analysis/members/test_compose.py::test_each_trial_that_covers_all_is_advised_by_the_best_specialist_for_each_part",
    ),
    "S2-22": Row(
        "TensorBoard and a summary of each training",
        "`record.json` and `reports.jsonl` of each trial",
        "trainables/test_trial.py::test_tensorboard_shows_the_curves_of_a_trial_under_its_number_and_backbone",
    ),
    "S2-23": Row(
        "images kept in memory",
        "views are decoded once and mapped: `cache`",
        "trainables/data/test_views.py::test_the_same_content_under_two_names_is_kept_once",
    ),
    "S2-24": Row(
        "calm analysis of causes in place of new tries; object detection",
        "`advise --run faces`; images are classified here, not searched for objects",
        "analysis/advise/test_advise.py::test_the_command_says_what_would_help_writes_it_and_finds_the_same_again",
    ),
    "S3-1": Row("counts of values", "`look --data photos`", "tuner/test_look.py::test_one_page_shows_counts_examples_and_what_looks_odd"),
    "S3-2": Row("8:2, or stratified folds that use all data", "`refit --run faces --top 1 --folds 5`"),
    "S3-3": Row(
        "accuracy, F1, recall, confusion matrix, report by class",
        "`vote --run faces --details`",
        "analysis/evaluation/test_scoring.py::test_the_class_table_equals_scikit_learn_class_by_class",
    ),
    "S3-4": Row("a model for each target"),
    "S3-5": Row(
        "age as a number whose cuts are fitted",
        "",
        "trainables/models/test_cuts.py::test_the_cuts_and_the_scale_that_made_classes_of_numbers_are_found_again",
    ),
    "S3-6": Row("two pre-trained networks side by side"),
    "S3-7": Row("oversampling of the old"),
    "S3-8": Row("undersampling"),
    "S3-9": Row(
        "several models of one target in an ensemble",
        "`vote --run ages --top 3`",
        "analysis/members/test_compose.py::test_the_rth_best_specialists_join",
    ),
    "S3-10": Row("face crop"),
    "S3-11": Row("CutMix, a model for each target"),
    "S3-12": Row("cosine loss with cross-entropy"),
    "S3-13": Row("learning rates tuned by hand", "`optimizer/lr: {float: [1e-5, 1e-3], log: true}`: searched"),
    "S3-14": Row(
        "a template for numbers, folds and several models",
        "`spaces`, and parts of one's own",
        "test_extending.py::test_trials_have_the_parts_that_the_run_keeps_and_resume_with_its_copy_after_the_file_has_gone",
    ),
    "S3-15": Row("accumulated gradients, patience 3, focal, StepLR"),
    "S3-16": Row("GoogLeNet and others"),
    "S3-17": Row("other people's images"),
    "S3-18": Row(
        "several seeds of one model",
        "`refit --run faces --top 3 --seeds 3`",
        "tuner/test_refit.py::test_each_seed_is_new_and_gives_another_model",
    ),
    "S3-19": Row(
        "an address for programs",
        "`demo --ensemble runs/faces/ensemble`: `POST /api/predict`",
        "analysis/demo/test_demo.py::test_it_answers_as_analysis_predict_does",
    ),
    "S3-20": Row(
        "the same result again, and shared",
        "`replay --run faces --trial 7`",
        "tuner/test_replay.py::test_a_fresh_process_trains_the_same_bits_without_ray",
    ),
    "S3-21": Row(
        "the model's problem looked for before a new one",
        "`mistakes --run faces`",
        "analysis/mistakes/test_mistakes.py::test_where_errors_were_planted_they_are_found_and_stand_first",
    ),
    "S3-22": Row(
        "the gap between the own score and the leaderboard's",
        "`note`, then `runs`",
        "analysis/note/test_note.py::test_a_note_says_whether_the_score_lies_within_the_interval_of_our_own_and_where_shift_was_found",
    ),
    "S3-23": Row("Slack, Notion, Git", left_out="how a team talks; the report of a run is one file to share"),
    "S4-1": Row("joint classes, three models, or three heads"),
    "S4-2": Row(
        "a look at images, labels and their borders",
        "`look --data photos`",
        "analysis/evaluation/test_look.py::test_numbers_at_a_cut_far_away_and_capped_are_told",
    ),
    "S4-3": Row("ages at the border left out of training, and of nothing else"),
    "S4-4": Row("old from 58 on in training"),
    "S4-5": Row("face crop by MTCNN"),
    "S4-6": Row(
        "face crop at inference as in training",
        "",
        "analysis/predict/test_predict.py::test_a_face_view_finds_faces_by_itself_and_says_where_there_is_none",
    ),
    "S4-7": Row("images without a face cut at the centre, and counted"),
    "S4-8": Row("background removed, by its colours or by a mask that is the image's transparency"),
    "S4-9": Row(
        "suspicious labels listed",
        "`suspects --run faces`",
        "analysis/suspects/test_suspects.py::test_the_command_names_every_suspect_and_every_group_that_was_not_evaluated",
    ),
    "S4-10": Row(
        "a window for relabelling",
        "the page of `suspects`, by keyboard",
        "analysis/suspects/test_suspects_page.py::test_all_accepted_the_saved_table_gives_the_labels_that_the_models_see",
    ),
    "S4-11": Row("pseudo-labels in place of noisy ones"),
    "S4-12": Row("horizontal flip"),
    "S4-13": Row("colour jitter, very small"),
    "S4-14": Row("random erasing with an area and an aspect"),
    "S4-15": Row("many transforms, of which at most so many"),
    "S4-16": Row("CutMix within a class, its partner from all training images and no other"),
    "S4-17": Row("vertical CutMix of .46 to .54"),
    "S4-18": Row(
        "a GAN that makes faces older",
        left_out="that team did not do it either: it blurs the very border that is hard; made images come in by `data/extra`",
    ),
    "S4-19": Row("ResNet-18 and -34"),
    "S4-20": Row(
        "the network chosen by parameters and ImageNet accuracy",
        "`backbones 'efficientnet_b*' resnet34 --max-params 20M`",
        "trainables/models/test_catalogue.py::test_the_command_keeps_what_is_small_and_better",
    ),
    "S4-21": Row("ViT"),
    "S4-22": Row("the size of pre-training, batches of 32"),
    "S4-23": Row("weighted sampling of joint classes, counted"),
    "S4-24": Row("Adam 1e-4, weight decay, StepLR"),
    "S4-25": Row("cross-entropy and F1 losses"),
    "S4-26": Row(
        "last epochs on the validation images",
        "`refit --run faces --top 3 --all-data --last-epochs 3`",
        "tuner/test_refit.py::test_the_last_epochs_go_on_from_the_searched_weights_on_the_fold_that_validated",
    ),
    "S4-27": Row(
        "one file of settings for each training",
        "`config.json` of each trial",
        "trainables/test_record.py::test_config_json_holds_every_effective_value",
    ),
    "S4-28": Row(
        "a table of mistakes; two models side by side",
        "`mistakes --run faces --side-by-side faces/0 faces/3`",
        "analysis/mistakes/test_side_by_side.py::test_each_row_has_the_two_most_probable_classes_of_each_model_and_who_is_right",
    ),
    "S4-29": Row(
        "what a wrong answer comes from: no face, the age's border",
        "`mistakes --run faces`",
        "analysis/mistakes/test_mistakes.py::test_images_near_a_cut_are_those_within_two_of_it",
    ),
    "S4-30": Row(
        "the class with more data where the first is hardly ahead and the two best models disagree",
        "`vote --run faces --margin 0.3 --margin-for 'age>=60' --margin-disagree`",
        "analysis/evaluation/test_margin.py::test_the_rule_is_that_of_the_reference_task",
    ),
    "S4-31": Row(
        "hard voting of the best three whole models",
        "`vote --run faces --top 3 --whole --vote hard`",
        "analysis/ensemble/test_members.py::test_the_hard_vote_of_the_three_best_trials_is_one_command_and_equals_voting_by_hand",
    ),
    "S4-32": Row("metric learning for age"),
    "S4-33": Row(
        "a tool that repairs data",
        "`suspects --run faces`, then `labels/relabel`",
        "analysis/suspects/test_suspects_page.py::test_the_saved_table_holds_what_was_accepted_and_nothing_else",
    ),
    "S4-34": Row(
        "experiments compared and shared",
        "`report --run faces`: one page that needs nothing else",
        "analysis/report/test_report_page.py::test_the_page_needs_nothing_but_itself_and_leads_to_its_sisters",
    ),
    "S4-35": Row(
        "model soup, RandAugment",
        "`soup --run faces`",
        "analysis/soup/test_soup.py::test_the_command_makes_a_run_of_soups_that_is_read_with_the_search",
    ),
    "S4-36": Row(
        "a page that takes a picture and names one of 18 classes",
        "`demo --ensemble runs/faces/ensemble`",
        "analysis/demo/test_demo.py::test_images_are_chosen_predicted_kept_and_saved_as_csv",
    ),
    "S4-37": Row(
        "three models whose answers make the joint class, and pseudo-labels of them",
        "`predict --ensemble runs/faces/ensemble --photos new --out answers.csv`",
        "test_end_to_end.py::test_a_joint_model_and_three_specialists_vote_together",
    ),
}


def page() -> Iterator[str]:
    """The lines of docs/techniques.md."""
    yield HEAD + "| row | what | here | test |"
    yield "|---|---|---|---|"
    for name, row in ROWS.items():
        settings = ", ".join(f"`{path}: {show(value)}`" for path, value in TECHNIQUES.get(name, {}).items())
        file, function = (row.test or LEARNS).split("::")
        words = function.removeprefix("test_").replace("_", " ") if row.test else "trains with these"
        test = f"[{words}](../tests/{file})"
        yield f"| {name} | {row.what} | " + (
            f"left out: {row.left_out} | |" if row.left_out else f"{'; '.join(filter(None, (row.how, settings)))} | {test} |"
        )


def main() -> None:
    """Print the page."""
    print("\n".join(page()))


if __name__ == "__main__":
    main()
