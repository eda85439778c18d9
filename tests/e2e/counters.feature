Feature: A counter that many users share

  Scenario Outline: Incrementing a counter that stands at 0 gives 1
    Given <counter> stands at 0
    When a user increments it
    Then the answer is 1
    And it stands at 1

    Examples:
      | counter          |
      | /counter         |
      | /counters/visits |

  Scenario Outline: Getting a counter that stands at 0 gives 0
    Given <counter> stands at 0
    When a user gets it
    Then the answer is 0

    Examples:
      | counter         |
      | /counter        |
      | /counters/never |

  Scenario Outline: Updating a counter to 10 gives 10
    Given <counter> stands at 0
    When a user updates it to 10
    Then the answer is 10
    And it stands at 10

    Examples:
      | counter          |
      | /counter         |
      | /counters/visits |

  Scenario Outline: Concurrent increments add up exactly
    Given <counter> stands at 0
    When 8 users add 7 to it concurrently, 5 times each
    Then it stands at 280

    Examples:
      | counter          |
      | /counter         |
      | /counters/visits |
