/* placeholder: bets */
