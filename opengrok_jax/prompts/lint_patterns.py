"""The wordings that `lint` looks for, on folded text: lower case, no accents, single spaces.

A verb alone is never enough: each pattern wants the object that only an attempt on a safeguard has
("ignore the hashtags" is a task, "ignore your guidelines" is none), and words that would make it
innocent are looked for behind it ("developer mode on the phone").
"""

from __future__ import annotations

import re

_WORDS = r"(?:\W+\w+){0,%d}?\W+"  # at most so many words in between
_RULES = (
    r"(?:instructions?|guidelines?|directives?|system prompts?|programming|safeguards?|guardrails?"
    r"|safety (?:rules?|training|measures?)|content polic(?:y|ies)|restrictions|polic(?:y|ies)"
    r"|rules?(?! of (?:the )?(?:grammar|spelling|punctuation|football|game|road|league)))"
)
_LIMITS = (
    r"(?:rules|restrictions|limits|limitations|filters?|guidelines|guardrails|safeguards|censorship"
    r"|ethics|ethical (?:limits|guidelines|boundaries)|morals?|boundaries|content polic(?:y|ies))"
)
_FREE = (
    r"(?:no|without(?: any| your)?|free (?:of|from)(?: any| all)?|un(?:bound"
    r"|restricted) by|not bound by)"
)
_YOURS = (
    r"(?:your|its|the model'?s?|the assistant'?s?|the ai'?s?|all|any|openai'?s?|xai'?s?|grok'?s?)"
)
_OFF = (
    r"(?:disable|deactivate|turn(?:ing)? off|switch(?:ing)? off|remove|lift"
    r"|bypass(?:ing)?|get(?:ting)? (?:a)?round|circumvent|evade|work around|override"
    r"|break out of)"
)
_MODE = (
    r"(?:developer|dev|debug|god|sudo|admin|root|jailbreak|jailbroken|unrestricted"
    r"|unfiltered|uncensored|evil|unsafe|dan)"
)
_START = r"(?:^|[.!?:;,]\s*|\byou (?:must |will |shall |can |should |are to )?)"

PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (reason, re.compile(pattern))
    for reason, pattern in (
        (
            "override",
            rf"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget(?:ting)?|overrid(?:e|ing)"
            rf"|bypass(?:ing)?"
            rf"|neglect|discard|set aside|do not follow|don'?t follow|stop following)\W+"
            rf"(?:(?:all|any|every|each|of|the|these|those|your|my|our|its|previous|prior"
            rf"|above|earlier"
            rf"|preceding|former|foregoing|original|initial|system|safety|other"
            rf"|and)\W+){{0,6}}{_RULES}\b",
        ),
        (
            "override",
            r"\b(?:ignore|disregard|forget) (?:all |everything |anything |what(?:ever)? )(?:of )?"
            r"(?:that |which )?(?:you (?:were|have been|'?ve been) (?:told|taught"
            r"|instructed)|above|before this|prior)\b",
        ),
        (
            "persona",
            r"\bdo anything now\b|\b(?:you are|act as|become|be|play) dan\b(?= (?:and|who"
            r"|which|without|with no|free|now)\b)",
        ),
        (
            "persona",
            r"\bstay in character as (?:dan|an? (?:evil|unfiltered"
            r"|uncensored)\b)",
        ),
        (
            "no_rules",
            rf"\b(?:pretend|imagine|act|behave|suppose)\b{_WORDS % 6}{_FREE} "
            rf"(?:\w+ ){{0,2}}{_LIMITS}\b",
        ),
        (
            "no_rules",
            rf"\byou (?:now )?(?:have|follow|obey|know|are(?: now)?|answer|act|do not have"
            rf"|don'?t have)\W+(?:any )?(?:{_FREE} )?(?:\w+ ){{0,1}}?{_LIMITS}\b",
        ),
        (
            "no_rules",
            rf"\b(?:answer|respond|reply|speak|talk|act|behave|operate|generate"
            rf"|comply)(?:\W+\w+){{0,2}}?\W+"
            rf"(?:without(?: any)?|free of|with no) (?:\w+ ){{0,1}}?{_LIMITS}\b(?! (?:on|for"
            rf"|about|in|to)\b)",
        ),
        (
            "no_rules",
            r"\b(?:uncensored|unfiltered|unrestricted|amoral|unaligned) (?:ai|model"
            r"|assistant|chatbot|version|mode|answers?|responses?|bot)\b",
        ),
        (
            "mode",
            rf"\b(?:enter|enable|activate|engage|switch (?:in)?to|turn on|go into|unlock"
            rf"|you are (?:now )?in|respond in|answer in|act in|simulate|start) "
            rf"(?:the |your |a )?{_MODE} mode\b(?! on (?:the|a|your|my|his|her|their|an)\b)",
        ),
        (
            "mode",
            rf"\b{_MODE} mode (?:is )?(?:enabled|activated|engaged|unlocked)\b(?! on (?:the|a"
            rf"|your|my)\b)",
        ),
        (
            "jailbreak",
            r"\bjailbreak (?:yourself|the (?:model|ai|assistant|chatbot|teacher|llm)|prompt"
            r"|this (?:model|ai|assistant)|grok|chatgpt)\b",
        ),
        (
            "jailbreak",
            r"\b(?:this is|here is|use) (?:a|the|this) jailbreak\b|\bjailbroken (?:ai|model"
            r"|assistant|chatbot|version|llm)\b|\byou (?:are|have been) jailbroken\b",
        ),
        (
            "safety_off",
            rf"\b{_OFF} (?:of )?(?:{_YOURS} )(?:of )?(?:your |its |the )?(?:own )?(?:safety"
            rf"|content|moderation|ethical|security)?\W?(?:filters?|safeguards?|guardrails?"
            rf"|moderation|safety|restrictions|censorship|protections?|alignment"
            rf"|content polic(?:y|ies)|safety (?:features?|training|layers?))\b",
        ),
        (
            "safety_off",
            rf"\b{_OFF} (?:the )?(?:content|safety|moderation) (?:filters?|polic(?:y|ies)"
            rf"|systems?|layers?|guidelines)\b",
        ),
        (
            "no_refusal",
            rf"{_START}(?:never|do not|don'?t|must not|may not|cannot|can'?t"
            rf"|are not allowed to|under no circumstances) refuse\b(?! (?:pets|bargain))",
        ),
        (
            "no_refusal",
            rf"{_START}(?:never|do not|don'?t|must not|may not|cannot) (?:say|tell me|mention"
            rf"|claim|state|answer)(?: that)? (?:you|\W?i)(?:'?m| are| am)? ?(?:can'?t|cannot"
            rf"|can not|won'?t|unable|not able|not allowed|an ai|sorry)\b",
        ),
        (
            "no_refusal",
            r"\b(?:without|with no|no|omit|skip|leave out) (?:any )?(?:refusals?|safety "
            r"(?:warnings?|disclaimers?)|moral(?:i[sz]ing| lectures?)|ethical (?:warnings?"
            r"|disclaimers?))\b",
        ),
        (
            "system_prompt",
            r"\b(?:reveal|print|show(?: me)?|repeat|output|leak|tell me|display|give me"
            r"|what (?:is|are)|copy|translate)(?:\W+\w+){0,4}?\W+"
            r"(?:(?:your|the) (?:system|hidden|initial|original|secret|developer) (?:prompt"
            r"|instructions?|message)s?|your instructions)\b",
        ),
        (
            "encoding",
            r"\b(?:decode|decipher|decrypt|execute|follow"
            r"|obey)(?:\W+\w+){0,5}?\W+(?:base ?64|rot ?13|hex(?:adecimal)?|morse"
            r"|cipher(?:text)?|caesar|encoded (?:text|message|string|instructions?))\b",
        ),
        (
            "encoding",
            r"\b(?:answer|respond|reply|write(?: \w+)?|encode|output)(?: \w+){0,3}? (?:in|as"
            r"|with|using|into) (?:base ?64|rot ?13|hex(?:adecimal)?|morse(?: code)?"
            r"|leet ?speak|a (?:secret )?(?:cipher|code)|caesar)\b",
        ),
    )
)
# Long enough that no innocent text holds them when everything but its letters is taken out.
SQUEEZED = re.compile(
    r"(?:ignore|disregard|forget|bypass|override)(?:all|any|the|of){0,3}"
    r"(?:your|previous|prior|above|earlier){1,2}(?:instructions|guidelines|rules)"
    r"|doanythingnow|pretendyouhaveno(?:rules|restrictions|limits|filters)"
    r"|enterdevelopermode|revealyoursystemprompt"
    r"|youhaveno(?:rules|restrictions)"
    r"|withoutanyrestrictions|jailbreakmode|disableyoursafety|neverrefuse"
)
